//! `voice-otp tenant pause`, `resume` and `delete`.

use anyhow::{Context as _, anyhow};
use serde_json::json;
use voice_otp_schemas::TenantId;
use voice_otp_store::pool::Pool;
use voice_otp_store::settings;

use crate::args::Database;
use crate::commands::CommandError;
use crate::commands::database::{open, write_audit};
use crate::commands::input::tenant_id;
use crate::config::ArgumentChecker;
use crate::output::print_line;

pub(super) async fn set_paused(
    id: &str,
    paused: bool,
    database: &Database,
) -> Result<(), CommandError> {
    let (id, pool) = open_for(id, database).await?;
    if !settings::set_paused(&pool, &id, paused)
        .await
        .context("change the tenant")?
    {
        return Err(no_tenant(&id));
    }
    let (action, done) = if paused {
        ("tenant.paused", "paused")
    } else {
        ("tenant.resumed", "resumed")
    };
    write_audit(&pool, Some(&id), action, &json!({})).await?;
    print_line(&format!("{done} {id}"))?;
    Ok(())
}

pub(super) async fn delete(id: &str, database: &Database) -> Result<(), CommandError> {
    let (id, pool) = open_for(id, database).await?;
    if !settings::delete(&pool, &id)
        .await
        .context("delete the settings")?
    {
        return Err(no_tenant(&id));
    }
    write_audit(&pool, Some(&id), "voice_provider.removed", &json!({})).await?;
    print_line(&format!("deleted {id}"))?;
    Ok(())
}

async fn open_for(id: &str, database: &Database) -> Result<(TenantId, Pool), CommandError> {
    let mut checker = ArgumentChecker::default();
    let id = tenant_id(&mut checker, id);
    let url = checker.database(database);
    let (id, url) = checker.finish(|| Some((id?, url?)))?;
    Ok((id, open(&url).await?))
}

fn no_tenant(id: &TenantId) -> CommandError {
    CommandError::Failed(anyhow!("there is no tenant {id}"))
}
