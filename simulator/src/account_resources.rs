//! The resources of an account: itself, its balance, its numbers, and its dialing permissions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use voice_otp_schemas::phone::Country;

use crate::api_error::ApiError;
use crate::auth;
use crate::call::API_VERSION;
use crate::params::Params;
use crate::state::SimulatorState;

/// Handles `GET …/Accounts/{sid}.json`.
pub(crate) async fn account(
    State(state): State<Arc<SimulatorState>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let sid = file
        .strip_suffix(".json")
        .ok_or_else(|| ApiError::not_found(&format!("/{API_VERSION}/Accounts/{file}")))?;
    let account = auth::authorize_even_suspended(&state.accounts(), sid, &headers)?;
    Ok(Json(json!({
        "sid": account.sid,
        "owner_account_sid": account.sid,
        "friendly_name": "simulated",
        "status": if account.suspended { "suspended" } else { "active" },
        "type": if account.trial { "Trial" } else { "Full" },
        "uri": format!("/{API_VERSION}/Accounts/{}.json", account.sid),
    })))
}

/// Handles `GET …/Balance.json`.
pub(crate) async fn balance(
    State(state): State<Arc<SimulatorState>>,
    Path(account): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    Ok(Json(json!({
        "account_sid": account.sid,
        "balance": account.balance,
        "currency": account.currency,
    })))
}

/// Handles `GET …/IncomingPhoneNumbers.json`: the account's own numbers.
pub(crate) async fn numbers(
    State(state): State<Arc<SimulatorState>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    let voice = |number: &String| !account.numbers_without_voice.contains(number);
    let list = matching_numbers(query.as_deref(), &account.numbers, |number| {
        json!({
            "phone_number": number,
            "capabilities": {
                "voice": voice(number), "sms": true, "mms": false, "fax": false
            },
        })
    })?;
    Ok(Json(json!({ "incoming_phone_numbers": list })))
}

/// Handles `GET …/OutgoingCallerIds.json`: numbers that the account has verified as caller IDs.
pub(crate) async fn caller_ids(
    State(state): State<Arc<SimulatorState>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    let list = matching_numbers(
        query.as_deref(),
        &account.caller_ids,
        |number| json!({ "phone_number": number }),
    )?;
    Ok(Json(json!({ "outgoing_caller_ids": list })))
}

/// The numbers that contain the `PhoneNumber` of the query: Twilio matches parts of numbers.
fn matching_numbers(
    query: Option<&str>,
    numbers: &[String],
    to_json: impl Fn(&String) -> Value,
) -> Result<Vec<Value>, ApiError> {
    let params = Params::of_query(query);
    params.check_names(
        &["PhoneNumber", "PageSize"],
        &["FriendlyName", "Beta", "Origin", "Page", "PageToken"],
    )?;
    let part = params.single("PhoneNumber")?;
    params.number("PageSize", 1..=1_000, ApiError::strict)?;
    Ok(numbers
        .iter()
        .filter(|number| part.is_none_or(|part| number.contains(part)))
        .map(to_json)
        .collect())
}

/// Handles `GET /v1/DialingPermissions/Countries/{country}` of the voice product.
pub(crate) async fn dialing_permission(
    State(state): State<Arc<SimulatorState>>,
    Path(country): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authenticate(&state.accounts(), &headers)?;
    if Country::parse(&country).is_err() || country == "CA" {
        // Twilio counts Canada with the United States.
        return Err(ApiError::not_found(&format!(
            "/v1/DialingPermissions/Countries/{country}"
        )));
    }
    let risky = account.risky_countries.contains(&country);
    Ok(Json(json!({
        "iso_code": country,
        "low_risk_numbers_enabled": !account.blocked_countries.contains(&country),
        "high_risk_special_numbers_enabled": risky,
        "high_risk_tollfraud_numbers_enabled": risky,
    })))
}
