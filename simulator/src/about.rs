//! What can be read about an account: itself, its balance, its numbers, and where it may call.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use voice_otp_schemas::phone::Country;

use super::auth;
use super::call::API_VERSION;
use super::params::Params;
use super::refusal::Refusal;
use super::world::World;

/// Handles `GET …/Accounts/{sid}.json`.
pub(crate) async fn account(
    State(world): State<Arc<World>>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let sid = file
        .strip_suffix(".json")
        .ok_or_else(|| Refusal::not_found(&format!("/{API_VERSION}/Accounts/{file}")))?;
    let account = auth::even_suspended(&world.directory(), sid, &headers)?;
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
    State(world): State<Arc<World>>,
    Path(account): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let account = auth::account(&world.directory(), &account, &headers)?;
    Ok(Json(
        json!({ "account_sid": account.sid, "balance": account.balance, "currency": account.currency }),
    ))
}

/// Handles `GET …/IncomingPhoneNumbers.json`: the account's own numbers.
pub(crate) async fn numbers(
    State(world): State<Arc<World>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let account = auth::account(&world.directory(), &account, &headers)?;
    let voice = |number: &String| !account.numbers_without_voice.contains(number);
    let list = listed(
        query.as_deref(),
        &account.numbers,
        |number| json!({ "phone_number": number, "capabilities": { "voice": voice(number), "sms": true, "mms": false, "fax": false } }),
    )?;
    Ok(Json(json!({ "incoming_phone_numbers": list })))
}

/// Handles `GET …/OutgoingCallerIds.json`: numbers of others that the account may show.
pub(crate) async fn caller_ids(
    State(world): State<Arc<World>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let account = auth::account(&world.directory(), &account, &headers)?;
    let list = listed(
        query.as_deref(),
        &account.caller_ids,
        |number| json!({ "phone_number": number }),
    )?;
    Ok(Json(json!({ "outgoing_caller_ids": list })))
}

/// The numbers that hold the one that is asked for: Twilio matches parts of numbers.
fn listed(
    query: Option<&str>,
    numbers: &[String],
    shown: impl Fn(&String) -> Value,
) -> Result<Vec<Value>, Refusal> {
    let params = Params::of_query(query);
    params.only(
        &["PhoneNumber", "PageSize"],
        &["FriendlyName", "Beta", "Origin", "Page", "PageToken"],
    )?;
    let part = params.one("PhoneNumber")?;
    params.number("PageSize", 1..=1_000, Refusal::strict)?;
    Ok(numbers
        .iter()
        .filter(|number| part.is_none_or(|part| number.contains(part)))
        .map(shown)
        .collect())
}

/// Handles `GET /v1/DialingPermissions/Countries/{country}` of the voice product.
pub(crate) async fn dialing_permission(
    State(world): State<Arc<World>>,
    Path(country): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let account = auth::anybody(&world.directory(), &headers)?;
    if Country::parse(&country).is_err() || country == "CA" {
        // Twilio counts Canada with the United States.
        return Err(Refusal::not_found(&format!(
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
