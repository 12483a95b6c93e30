//! Test calls: a call with a random code to a number that the administrator enters.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp::settings::VoiceSettings;
use voice_otp::speech::Speaker;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::{Locale, PhoneNumber, TenantId};
use voice_otp_store::{Error, test_calls};

use super::{audit, provider};
use crate::access::Principal;
use crate::problem::{FieldError, Problem};
use crate::state::Console;

/// A test call to place.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTestCall {
    /// Number to call, E.164.
    pub(crate) to: String,
    /// Language of the call, BCP 47; omitted: the tenant's, or the language of the number's
    /// country.
    #[serde(default)]
    pub(crate) locale: Option<String>,
}

/// A test call in progress.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct TestCall {
    /// Id of the delivery.
    pub(crate) delivery_id: String,
    /// Code that the call reads, to compare with what is heard. It authenticates no one.
    pub(crate) code: String,
    /// Called number, masked.
    pub(crate) to_masked: String,
    /// Script of the call.
    pub(crate) says: String,
    /// Path of the call's statuses, as server-sent events.
    pub(crate) events: String,
}

/// How long the script says that the code is valid.
const ANNOUNCED_VALIDITY: Duration = Duration::from_mins(2);

/// Places a test call.
pub(crate) async fn place(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    new: &NewTestCall,
) -> Result<TestCall, Problem> {
    let settings = provider::load(console, tenant)
        .await?
        .ok_or_else(|| Problem::not_configured(tenant.as_str()))?;
    let (to, locale) = check(new, &settings).map_err(Problem::invalid)?;
    test_calls::take(&console.pool, tenant)
        .await
        .map_err(refusal)?;
    let request = voice_otp_publisher::test_call::request(tenant.clone(), to, locale)
        .map_err(|error| Problem::unavailable(&error))?;
    let detail = json!({ "to": request.to.masked(), "delivery_id": request.delivery_id });
    audit::record(console, principal, Some(tenant), "test_call", detail).await?;
    let call = describe(&request, &settings);
    console
        .publisher
        .request(&request)
        .await
        .map_err(|error| Problem::unavailable(&error))?;
    Ok(call)
}

fn check(
    new: &NewTestCall,
    settings: &VoiceSettings,
) -> Result<(PhoneNumber, Option<Locale>), Vec<FieldError>> {
    let mut errors = Vec::new();
    let to = PhoneNumber::parse(new.to.trim())
        .map_err(|error| errors.push(FieldError::new("to", error.to_string())))
        .ok();
    let locale = new
        .locale
        .as_deref()
        .map(str::trim)
        .filter(|locale| !locale.is_empty());
    let locale = locale
        .map(Locale::parse)
        .transpose()
        .unwrap_or_else(|error| {
            errors.push(FieldError::new("locale", error.to_string()));
            None
        });
    if let Some(country) = to.as_ref().and_then(PhoneNumber::country)
        && !settings.allowed_countries.contains(&country)
    {
        let message = format!("calls to {country} are not allowed: add it to Allowed countries");
        errors.push(FieldError::new("to", message));
    }
    match to {
        Some(to) if errors.is_empty() => Ok((to, locale)),
        _ => Err(errors),
    }
}

fn refusal(error: Error) -> Problem {
    match error {
        Error::TooManyTestCalls(wait) => Problem::too_many_requests(format!(
            "The tenant has placed {} test calls in the last {} minutes. Try again in {} seconds.",
            test_calls::MOST,
            test_calls::WINDOW.as_secs() / 60,
            wait.as_secs(),
        )),
        other => Problem::unavailable(&other),
    }
}

fn describe(request: &Requested, settings: &VoiceSettings) -> TestCall {
    let speaker = Speaker::new(
        request.locale.as_ref(),
        settings.default_locale.as_ref(),
        request.to.country(),
        &settings.speech,
    );
    let (tenant, delivery) = (&request.tenant_id, &request.delivery_id);
    TestCall {
        delivery_id: delivery.to_string(),
        // The administrator compares it with what they hear.
        code: request.code.expose().to_owned(),
        to_masked: request.to.masked(),
        says: speaker.message(&request.code, ANNOUNCED_VALIDITY).text(),
        events: format!("/api/v1/tenants/{tenant}/deliveries/{delivery}/events"),
    }
}
