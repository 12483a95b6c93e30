//! A tenant's provider, test calls, methods, and what was changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::access::Role;
use voice_otp_store::audit;
use voice_otp_store::settings::{self, Expected};

use super::{Body, Names, Params, expected, with_etag};
use crate::console::Console;
use crate::console::access::Caller;
use crate::console::methods::{self, Methods, NewMethods};
use crate::console::problem::Problem;
use crate::console::voice::{self, NewVoiceProvider, TestCall, VoiceProvider};

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Me {
    /// The token's name.
    name: String,
    /// `operator` or `tenant_admin`.
    role: &'static str,
    /// Whose, if it is a tenant administrator's.
    tenant_id: Option<String>,
}

/// Who I am.
#[utoipa::path(get, path = "/api/v1/me", responses((status = 200, body = Me), (status = 401, body = Problem)))]
pub(super) async fn me(caller: Caller) -> Json<Me> {
    let tenant_id = match &caller.who.role {
        Role::Operator => None,
        Role::TenantAdmin(tenant) => Some(tenant.to_string()),
    };
    Json(Me {
        name: caller.who.name.clone(),
        role: caller.who.role.as_str(),
        tenant_id,
    })
}

/// A tenant in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantSummary {
    /// Its id.
    tenant_id: String,
    /// Its Twilio account.
    account_sid: String,
    /// Whether voice is on.
    enabled: bool,
    /// Whether calls are only pretended.
    test_mode: bool,
}

/// The tenants that have a provider. For operators.
#[utoipa::path(get, path = "/api/v1/tenants", responses((status = 200, body = [TenantSummary]), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn list(
    State(console): State<Arc<Console>>,
    caller: Caller,
) -> Result<Json<Vec<TenantSummary>>, Problem> {
    caller.operator()?;
    let summary = |tenant: settings::Summary| TenantSummary {
        tenant_id: tenant.tenant_id.to_string(),
        account_sid: tenant.account_sid,
        enabled: tenant.enabled,
        test_mode: tenant.test_mode,
    };
    Ok(Json(
        settings::list(&console.pool)
            .await?
            .into_iter()
            .map(summary)
            .collect(),
    ))
}

/// The tenant's voice provider, without secrets. Its version is the `ETag`.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/voice-provider", params(("tenant" = String, Path)),
    responses((status = 200, body = VoiceProvider), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn get_provider(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
) -> Result<Response, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let provider = voice::show(&console, &tenant)
        .await?
        .ok_or_else(Problem::not_found)?;
    Ok(with_etag(provider.version, provider))
}

/// Saves the tenant's voice provider: with If-Match a change of that version, with If-None-Match: * the first one.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/voice-provider", request_body = NewVoiceProvider,
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = 200, body = VoiceProvider), (status = 201, body = VoiceProvider), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem), (status = 428, body = Problem)))]
pub(super) async fn put_provider(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    headers: HeaderMap,
    Body(new): Body<NewVoiceProvider>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let expected = expected(&headers)?;
    let saved = voice::save(&console, &caller, &tenant, &new, expected).await?;
    let mut response = with_etag(saved.version, saved);
    if expected == Expected::Nothing {
        *response.status_mut() = StatusCode::CREATED;
    }
    Ok(response)
}

/// Removes the tenant's voice provider of the version in If-Match. Its deliveries end as they may.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/voice-provider",
    params(("tenant" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem),
        (status = 412, body = Problem), (status = 428, body = Problem)))]
pub(super) async fn delete_provider(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let Expected::Version(version) = expected(&headers)? else {
        return Err(Problem::needs_version());
    };
    voice::remove(&console, &caller, &tenant, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was found about one matter.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CheckFinding {
    /// `credentials`, `account`, `from`, `countries`, `balance` or `callback`.
    check: String,
    /// `ok`, `warning`, `fault` or `unknown`.
    verdict: String,
    /// A constant word for what was found.
    code: String,
    /// The same in a sentence.
    message: String,
    /// What to do about it.
    remedy: Option<String>,
}

/// Asks Twilio whether the provider can work: credentials, account, From number, countries, balance, callbacks.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/voice-provider/check", params(("tenant" = String, Path)),
    responses((status = 200, body = [CheckFinding]), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn check(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
) -> Result<Json<Vec<CheckFinding>>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let findings = voice::examine(&console, &tenant).await?;
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |finding: voice_otp_twilio::check::Finding| CheckFinding {
        check: word(serde_json::to_value(finding.check).unwrap_or_default()),
        verdict: word(serde_json::to_value(finding.verdict).unwrap_or_default()),
        code: finding.code.to_owned(),
        message: finding.message,
        remedy: finding.remedy,
    };
    Ok(Json(findings.into_iter().map(finding).collect()))
}

/// The Twilio account's balance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountBalance {
    /// A decimal number; none where Twilio tells none: a subaccount shares its owner's.
    balance: Option<String>,
    /// ISO 4217.
    currency: Option<String>,
}

/// Asks Twilio for the account's balance.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/voice-provider/balance", params(("tenant" = String, Path)),
    responses((status = 200, body = AccountBalance), (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem)))]
pub(super) async fn balance(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
) -> Result<Json<AccountBalance>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let settings = voice::load(&console, &tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    let told = console.twilio.balance(&settings).await;
    let (balance, currency) = told.map_or((None, None), |told| (told.balance, told.currency));
    Ok(Json(AccountBalance { balance, currency }))
}

/// A test call to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTestCall {
    /// The number to call, E.164.
    to: String,
    /// The language, BCP 47.
    #[serde(default)]
    locale: Option<String>,
}

/// Calls a number and reads a random code: five times in ten minutes at the most. Its statuses come at `events`.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/test-calls", request_body = NewTestCall, params(("tenant" = String, Path)),
    responses((status = 202, body = TestCall), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn test_call(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    Body(new): Body<NewTestCall>,
) -> Result<Response, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let call = voice::try_out(&console, &caller, &tenant, &new.to, new.locale.as_deref()).await?;
    Ok((
        StatusCode::ACCEPTED,
        [(LOCATION, call.events.clone())],
        Json(call),
    )
        .into_response())
}

/// Which ways of getting a code the tenant's users may pick.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/methods", params(("tenant" = String, Path)),
    responses((status = 200, body = Methods), (status = 401, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn get_methods(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
) -> Result<Json<Methods>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    Ok(Json(methods::show(&console, &tenant).await?))
}

/// Lets users pick Voice OTP, or not; refused while no provider is configured.
#[utoipa::path(put, path = "/api/v1/tenants/{tenant}/methods", request_body = NewMethods, params(("tenant" = String, Path)),
    responses((status = 200, body = Methods), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn put_methods(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    Body(new): Body<NewMethods>,
) -> Result<Json<Methods>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    Ok(Json(
        methods::save(&console, &caller, &tenant, new.voice_otp.enabled).await?,
    ))
}

/// A change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// Its number; later ones are greater.
    pub(crate) id: i64,
    /// When, RFC 3339.
    pub(crate) at: String,
    /// Who: a token's name and id.
    pub(crate) actor: String,
    /// Whose.
    pub(crate) tenant_id: Option<String>,
    /// What was done.
    pub(crate) action: String,
    /// What exactly; never a secret.
    pub(crate) detail: serde_json::Value,
}

impl From<audit::Entry> for AuditEntry {
    fn from(entry: audit::Entry) -> Self {
        let audit::Entry {
            id,
            at,
            actor,
            tenant_id,
            action,
            detail,
        } = entry;
        Self {
            id,
            at: rfc3339(at),
            actor,
            tenant_id,
            action,
            detail,
        }
    }
}

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditQuery {
    /// Those before this number.
    pub(super) before: Option<i64>,
    /// How many, 100 at the most.
    #[param(minimum = 1, maximum = 100)]
    pub(super) limit: Option<i64>,
}

impl AuditQuery {
    pub(super) fn most(&self) -> i64 {
        self.limit.unwrap_or(50).clamp(1, 100)
    }
}

/// What was changed of this tenant, the latest first.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit", params(("tenant" = String, Path), AuditQuery),
    responses((status = 200, body = [AuditEntry]), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn audit(
    State(console): State<Arc<Console>>,
    Names(tenant): Names<String>,
    caller: Caller,
    Params(query): Params<AuditQuery>,
) -> Result<Json<Vec<AuditEntry>>, Problem> {
    let tenant = caller.tenant(&tenant)?;
    let entries = audit::read(&console.pool, Some(&tenant), query.before, query.most()).await?;
    Ok(Json(entries.into_iter().map(AuditEntry::from).collect()))
}
