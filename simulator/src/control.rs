//! The simulator's own endpoints, under `/simulator`. They need no credentials, so the simulator
//! must be reachable from the developer's machine only.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::DateTime;
use serde::Deserialize;

use crate::account::Account;
use crate::api_error::ApiError;
use crate::fate::Fate;
use crate::faults::{self, Faults};
use crate::number::is_e164;
use crate::report::{CallReport, Stats};
use crate::state::SimulatorState;

/// The body of `POST /simulator/fates`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FateChoice {
    to: String,
    fate: Fate,
    /// For how many requests; without limit if missing or null. 0 removes an earlier choice.
    times: Option<u32>,
}

/// Handles `POST /simulator/fates`.
pub(crate) async fn fates(
    State(state): State<Arc<SimulatorState>>,
    Json(choice): Json<FateChoice>,
) -> Result<impl IntoResponse, ApiError> {
    if !is_e164(&choice.to) {
        return Err(ApiError::strict("to is a number in E.164"));
    }
    state.fates().set(choice.to, choice.fate, choice.times);
    Ok(StatusCode::NO_CONTENT)
}

/// Handles `POST /simulator/accounts`.
pub(crate) async fn accounts(
    State(state): State<Arc<SimulatorState>>,
    Json(account): Json<Account>,
) -> Result<impl IntoResponse, ApiError> {
    account.validate().map_err(ApiError::strict)?;
    state.accounts().put(account);
    Ok(StatusCode::NO_CONTENT)
}

/// Handles `PATCH /simulator/faults`, and answers with the faults that are now set.
pub(crate) async fn faults(
    State(state): State<Arc<SimulatorState>>,
    Json(change): Json<faults::FaultsChange>,
) -> Result<Json<Faults>, ApiError> {
    let mut faults = state.faults();
    *faults = faults.changed(change).map_err(ApiError::strict)?;
    Ok(Json(*faults))
}

/// The query of `GET /simulator/calls`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallsQuery {
    to: Option<String>,
    since: Option<String>,
}

/// Handles `GET /simulator/calls`, the oldest first.
pub(crate) async fn calls(
    State(state): State<Arc<SimulatorState>>,
    Query(query): Query<CallsQuery>,
) -> Result<Json<Vec<CallReport>>, ApiError> {
    // An unencoded + arrives as a space.
    let to = query
        .to
        .filter(|to| !to.is_empty())
        .map(|to| to.replacen(' ', "+", 1));
    let since = query.since.filter(|since| !since.is_empty());
    let since = since
        .map(|since| DateTime::parse_from_rfc3339(&since.replace(' ', "+")))
        .transpose();
    let since = since.map_err(|_| ApiError::strict("since is a time in RFC 3339"))?;
    let store = state.calls();
    let calls = store.all(to.as_deref()).into_iter();
    Ok(Json(
        calls
            .filter(|call| since.is_none_or(|since| call.created >= since))
            .map(CallReport::of)
            .collect(),
    ))
}

/// Handles `GET /simulator/stats`.
pub(crate) async fn stats(State(state): State<Arc<SimulatorState>>) -> Json<Stats> {
    Json(Stats::of(&state))
}
