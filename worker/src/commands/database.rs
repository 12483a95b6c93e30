//! `voice-otp database`, and the database as the other commands use it.

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use serde_json::Value;
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::TenantId;
use voice_otp_store::grants::Program;
use voice_otp_store::server_checks::{self, Severity};
use voice_otp_store::{DatabaseUrl, Keyring, audit, connect, migrate, pool::Pool, settings};

use crate::args::{Database, DatabaseCommand, DatabaseProgram};
use crate::config::ArgumentChecker;
use crate::output::print_line;

use super::CommandError;

/// A command makes one statement after another; the second connection is for the audit log.
const CONNECTIONS: usize = 2;

pub(super) async fn run(command: DatabaseCommand) -> Result<(), CommandError> {
    match command {
        DatabaseCommand::Check { program, database } => check(program, &database).await,
    }
}

async fn check(program: DatabaseProgram, database: &Database) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let url = checker.database(database);
    let url = checker.finish(|| url)?;
    let url = DatabaseUrl::parse(&url).context("use the database URL")?;
    let program = match program {
        DatabaseProgram::Worker => Program::Worker,
        DatabaseProgram::Console => Program::Console,
    };
    let findings = server_checks::check(&url, program)
        .await
        .context("check the database server")?;
    let mut worst = Severity::Ok;
    for finding in findings {
        worst = worst.max(finding.severity);
        let severity = finding.severity.as_str();
        print_line(&format!(
            "{:<20} {severity:<8} {}",
            finding.name, finding.text
        ))?;
    }
    if worst == Severity::Error {
        Err(CommandError::Reported)
    } else {
        Ok(())
    }
}

/// Opens a migrated database.
pub(super) async fn open(url: &SecretString) -> anyhow::Result<Pool> {
    let pool = connect(url, CONNECTIONS).context("use the database URL")?;
    migrate::check(&pool).await.context("check the database")?;
    Ok(pool)
}

/// Opens the database of a command that takes no other argument that could be wrong.
pub(super) async fn open_only(database: &Database) -> Result<Pool, CommandError> {
    let mut checker = ArgumentChecker::default();
    let url = checker.database(database);
    let url = checker.finish(|| url)?;
    Ok(open(&url).await?)
}

/// The settings of a tenant that must exist.
pub(super) async fn load_tenant(
    pool: &Pool,
    keys: &Keyring,
    id: &TenantId,
) -> anyhow::Result<VoiceSettings> {
    settings::load_one(pool, keys, id)
        .await
        .context("read the settings")?
        .ok_or_else(|| anyhow!("there is no tenant {id}; voice-otp tenant set creates one"))
}

/// Adds a change to the audit log. `tenant` is `None` for a change of an account or of an
/// operator's token.
pub(super) async fn write_audit(
    pool: &Pool,
    tenant: Option<&TenantId>,
    action: &str,
    detail: &Value,
) -> anyhow::Result<()> {
    audit::write(pool, audit::COMMAND_LINE, tenant, action, detail)
        .await
        .context("write the audit log")
}
