//! Authentication, Settings, Methods: which ways of getting a code a tenant's users may pick.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp_schemas::TenantId;
use voice_otp_store::settings;

use super::Console;
use super::access::Caller;
use super::problem::Problem;
use super::voice;

/// A tenant's methods.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Methods {
    /// Voice OTP: a code by phone call.
    pub(super) voice_otp: Method,
}

/// A method.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Method {
    /// Whether users may pick it.
    pub(super) enabled: bool,
    /// Whether an operator has switched voice off for the tenant: nobody is called then, whatever users pick.
    pub(super) switched_off: bool,
    /// Whether it could be: a provider is configured.
    pub(super) configured: bool,
    /// Where the provider is configured.
    pub(super) provider: String,
}

/// Methods to be saved.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMethods {
    /// Voice OTP.
    pub(super) voice_otp: NewMethod,
}

/// A method to be saved.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMethod {
    /// Whether users may pick it.
    pub(super) enabled: bool,
}

pub(super) async fn show(console: &Console, tenant: &TenantId) -> Result<Methods, Problem> {
    let settings = voice::load(console, tenant).await?;
    Ok(Methods {
        voice_otp: Method {
            enabled: settings.as_ref().is_some_and(|settings| settings.offered),
            switched_off: settings.as_ref().is_some_and(|settings| !settings.enabled),
            configured: settings.is_some(),
            provider: format!("/t/{tenant}/providers/voice"),
        },
    })
}

/// Lets users pick Voice OTP, or not. Refused while no provider is configured.
pub(super) async fn save(
    console: &Console,
    caller: &Caller,
    tenant: &TenantId,
    enabled: bool,
) -> Result<Methods, Problem> {
    loop {
        let Some(settings) = voice::load(console, tenant).await? else {
            if enabled {
                return Err(Problem::not_configured(tenant.as_str()));
            }
            return show(console, tenant).await;
        };
        if settings.offered == enabled {
            return show(console, tenant).await;
        }
        if settings::offer(&console.pool, tenant, enabled, settings.version).await? {
            caller
                .note(
                    console,
                    Some(tenant),
                    "methods.changed",
                    json!({ "voice_otp": enabled }),
                )
                .await?;
            return show(console, tenant).await;
        }
    }
}
