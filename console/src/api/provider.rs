//! `/tenants/{tenant}/voice-provider`: a tenant's voice provider.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_store::settings::Expected;
use voice_otp_twilio::check::{Check, Finding, Verdict};

use super::extract::{JsonBody, PathParams};
use super::version::{expected_version, with_etag};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::provider::{self, NewVoiceProvider, VoiceProvider};
use crate::state::Console;

/// Get the voice provider of a tenant.
///
/// Secrets are omitted; the version is the `ETag`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/voice-provider",
    params(("tenant" = String, Path)),
    responses((status = 200, body = VoiceProvider), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn get_voice_provider(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
) -> Result<Response, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let provider = provider::show(&console, &tenant)
        .await?
        .ok_or_else(Problem::not_found)?;
    Ok(with_etag(provider.version, provider))
}

/// Save the voice provider of a tenant.
///
/// `If-Match` with the `ETag` changes that version; `If-None-Match: *` creates the first one.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/voice-provider",
    request_body = NewVoiceProvider,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header),
        ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = VoiceProvider), (status = 201, body = VoiceProvider),
        (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem),
        (status = 428, body = Problem)))]
pub(super) async fn put_voice_provider(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    headers: HeaderMap,
    JsonBody(new): JsonBody<NewVoiceProvider>,
) -> Result<Response, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let expected = expected_version(&headers)?;
    let saved = provider::save(&console, &principal, &tenant, &new, expected).await?;
    let mut response = with_etag(saved.version, saved);
    if expected == Expected::Nothing {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Remove the voice provider of a tenant, if its version is the one in `If-Match`.
///
/// Calls in progress continue.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/voice-provider",
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 412, body = Problem),
        (status = 428, body = Problem)))]
pub(super) async fn delete_voice_provider(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let Expected::Version(version) = expected_version(&headers)? else {
        return Err(Problem::precondition_required());
    };
    provider::remove(&console, &principal, &tenant, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Result of one check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckFinding {
    /// `credentials`, `account`, `from`, `countries`, `balance` or `callback`.
    #[schema(value_type = String)]
    check: Check,
    /// `ok`, `warning`, `fault` or `unknown`.
    #[schema(value_type = String)]
    verdict: Verdict,
    /// Constant word for the result, for programs.
    code: &'static str,
    /// Result, for people.
    message: String,
    /// Recommended action; null if none is needed.
    remedy: Option<String>,
}

impl From<Finding> for CheckFinding {
    fn from(finding: Finding) -> Self {
        Self {
            check: finding.check,
            verdict: finding.verdict,
            code: finding.code,
            message: finding.message,
            remedy: finding.remedy,
        }
    }
}

/// Check the voice provider with Twilio.
///
/// Checks credentials, account, From number, countries, balance and callbacks. No call is placed.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/voice-provider/check",
    params(("tenant" = String, Path)),
    responses((status = 200, body = [CheckFinding]), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn check_voice_provider(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
) -> Result<Json<Vec<CheckFinding>>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let findings = provider::check(&console, &tenant).await?;
    Ok(Json(findings.into_iter().map(CheckFinding::from).collect()))
}

/// Balance of a Twilio account.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct AccountBalance {
    /// Balance as a decimal number; null if Twilio reports none. Subaccounts share the balance of
    /// their parent account.
    balance: Option<String>,
    /// Currency, ISO 4217.
    currency: Option<String>,
}

/// Get the balance of the tenant's Twilio account from Twilio.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/voice-provider/balance",
    params(("tenant" = String, Path)),
    responses((status = 200, body = AccountBalance), (status = 401, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn get_balance(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
) -> Result<Json<AccountBalance>, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let balance = provider::balance(&console, &tenant).await?;
    Ok(Json(balance.map_or_else(
        AccountBalance::default,
        |balance| AccountBalance {
            balance: balance.balance,
            currency: balance.currency,
        },
    )))
}
