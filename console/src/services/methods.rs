//! Authentication methods: whether a tenant's users may choose Voice OTP.

use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use voice_otp_schemas::TenantId;
use voice_otp_store::settings;

use super::{audit, provider};
use crate::access::Principal;
use crate::problem::Problem;
use crate::state::Console;

/// Authentication methods of a tenant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Methods {
    /// Voice OTP: a one-time password by phone call.
    pub(crate) voice_otp: Method,
}

/// An authentication method.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Method {
    /// Whether users may choose the method.
    pub(crate) enabled: bool,
    /// Whether an operator has disabled voice for the tenant: no calls are placed, even if the
    /// method is enabled.
    pub(crate) switched_off: bool,
    /// Whether a voice provider is configured, so that the method can be enabled.
    pub(crate) configured: bool,
    /// Page on which the voice provider is configured.
    pub(crate) provider: String,
}

/// Authentication methods to save.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMethods {
    /// Voice OTP.
    pub(crate) voice_otp: NewMethod,
}

/// An authentication method to save.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMethod {
    /// Whether users may choose the method.
    pub(crate) enabled: bool,
}

pub(crate) async fn show(console: &Console, tenant: &TenantId) -> Result<Methods, Problem> {
    let settings = provider::load(console, tenant).await?;
    Ok(Methods {
        voice_otp: Method {
            enabled: settings.as_ref().is_some_and(|settings| settings.offered),
            switched_off: settings.as_ref().is_some_and(|settings| !settings.enabled),
            configured: settings.is_some(),
            provider: format!("/t/{tenant}/providers/voice"),
        },
    })
}

/// Lets users choose Voice OTP, or not. Fails to enable it while no provider is configured.
pub(crate) async fn save(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    enabled: bool,
) -> Result<Methods, Problem> {
    loop {
        let Some(settings) = provider::load(console, tenant).await? else {
            if enabled {
                return Err(Problem::not_configured(tenant.as_str()));
            }
            return show(console, tenant).await;
        };
        if settings.offered == enabled {
            return show(console, tenant).await;
        }
        // False after a concurrent change of the settings: read them again.
        if settings::set_offered(&console.pool, tenant, enabled, settings.version).await? {
            let detail = json!({ "voice_otp": enabled });
            audit::record(console, principal, Some(tenant), "methods.changed", detail).await?;
            return show(console, tenant).await;
        }
    }
}
