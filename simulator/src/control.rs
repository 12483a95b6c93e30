//! The simulator's own endpoints, under `/simulator`. They need no credentials: the simulator is a tool on a
//! developer's loopback address and must not be reachable from elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use chrono::DateTime;
use serde::Deserialize;

use super::account::Account;
use super::fate::Fate;
use super::faults::{self, Faults};
use super::number::is_e164;
use super::refusal::Refusal;
use super::report::{CallReport, Stats};
use super::world::World;

/// The fate of a number.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Choice {
    to: String,
    fate: Fate,
    /// For how many requests; for ever if it is missing or null, and none takes an earlier choice back.
    times: Option<u32>,
}

/// Handles `POST /simulator/fates`.
pub(crate) async fn fates(
    State(world): State<Arc<World>>,
    Json(choice): Json<Choice>,
) -> Result<impl IntoResponse, Refusal> {
    if !is_e164(&choice.to) {
        return Err(Refusal::strict("to is a number in E.164"));
    }
    world.fates().choose(choice.to, choice.fate, choice.times);
    Ok(StatusCode::NO_CONTENT)
}

/// Handles `POST /simulator/accounts`.
pub(crate) async fn accounts(
    State(world): State<Arc<World>>,
    Json(account): Json<Account>,
) -> Result<impl IntoResponse, Refusal> {
    if let Some(mistake) = account.mistake() {
        return Err(Refusal::strict(mistake));
    }
    world.directory().put(account);
    Ok(StatusCode::NO_CONTENT)
}

/// Handles `PATCH /simulator/faults`, and answers what they are now.
pub(crate) async fn faults(
    State(world): State<Arc<World>>,
    Json(change): Json<faults::Change>,
) -> Result<Json<Faults>, Refusal> {
    let mut faults = world.faults();
    *faults = faults.changed(change).map_err(Refusal::strict)?;
    Ok(Json(*faults))
}

/// Which calls are wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    to: Option<String>,
    since: Option<String>,
}

/// Handles `GET /simulator/calls`, the oldest first.
pub(crate) async fn calls(
    State(world): State<Arc<World>>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<CallReport>>, Refusal> {
    // A + that nobody encoded arrives as a space.
    let to = wanted
        .to
        .filter(|to| !to.is_empty())
        .map(|to| to.replacen(' ', "+", 1));
    let since = wanted.since.filter(|since| !since.is_empty());
    let since = since
        .map(|since| DateTime::parse_from_rfc3339(&since.replace(' ', "+")))
        .transpose();
    let since = since.map_err(|_| Refusal::strict("since is a time in RFC 3339"))?;
    let book = world.book();
    let calls = book.all(to.as_deref()).into_iter();
    Ok(Json(
        calls
            .filter(|call| since.is_none_or(|since| call.created >= since))
            .map(CallReport::of)
            .collect(),
    ))
}

/// Handles `GET /simulator/stats`.
pub(crate) async fn stats(State(world): State<Arc<World>>) -> Json<Stats> {
    Json(Stats::of(&world))
}
