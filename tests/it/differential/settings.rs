//! Operations on a tenant's settings.

use voice_otp::settings::Draft;

use super::operation::Operation;
use super::side::id;
use crate::ledger_contract::stage::Stage;
use crate::memory::sample::draft;

/// Performs an operation on settings; any other does nothing.
pub(super) async fn perform<S: Stage>(stage: &S, operation: &Operation) -> String {
    match operation {
        Operation::Credentials { tenant, rejected } => {
            let Some(settings) = stage.settings(&id(tenant)).await else {
                return "the settings are deleted".to_owned();
            };
            let changed = if *rejected {
                Some(stage.reject_credentials(&settings).await)
            } else {
                stage.accept_credentials(&settings).await;
                None
            };
            let now = stage.settings(&id(tenant)).await;
            format!("{changed:?} {:?}", now.map(|now| now.credentials_rejected))
        }
        Operation::ProbeCredentials => {
            let mut claimed = stage.claim_rejected().await;
            claimed.sort();
            format!("{claimed:?}")
        }
        Operation::DeleteSettings { tenant } => {
            stage.delete(&id(tenant)).await;
            String::new()
        }
        Operation::SaveSettings { tenant, enabled } => {
            let account = if *tenant == "gamma" { 2 } else { 1 };
            let draft = Draft {
                enabled: *enabled,
                ..draft(account, 0.5)
            };
            let saved = stage.save_tenant(tenant, &draft).await;
            format!("{} {}", saved.pace_key, saved.credentials_rejected)
        }
        _ => String::new(),
    }
}
