//! `voice-otp tenant list`.

use anyhow::Context as _;
use serde_json::json;
use voice_otp_store::settings;

use crate::args::Database;
use crate::commands::CommandError;
use crate::commands::database::open_only;
use crate::output::{print_json, print_line};

pub(super) async fn run(as_json: bool, database: &Database) -> Result<(), CommandError> {
    let pool = open_only(database).await?;
    let tenants = settings::list(&pool).await.context("list the tenants")?;
    if as_json {
        let all = tenants.iter().map(|tenant| {
            json!({
                "tenant_id": tenant.tenant_id,
                "account_sid": tenant.account_sid,
                "enabled": tenant.enabled,
                "test_mode": tenant.test_mode,
                "calls_per_second": tenant.calls_per_second,
            })
        });
        print_json(&all.collect::<Vec<_>>())?;
        return Ok(());
    }
    for tenant in tenants {
        let state = match (tenant.enabled, tenant.test_mode) {
            (false, _) => "disabled",
            (true, true) => "test mode",
            (true, false) => "enabled",
        };
        print_line(&format!(
            "{:<24} {:<36} {:>8} calls/s  {state}",
            tenant.tenant_id.as_str(),
            tenant.account_sid,
            tenant.calls_per_second
        ))?;
    }
    Ok(())
}
