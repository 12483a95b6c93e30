//! `voice-otp migrate`.

use anyhow::Context as _;

use crate::cli::Migrate;
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::Failed;

pub(crate) async fn run(args: &Migrate) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.database(&args.database);
    let url = checks.done(url)?;
    let pool = voice_otp_store::connect(&url, 1).context("use the database URL")?;
    let applied = voice_otp_store::migrate::apply(&pool)
        .await
        .context("migrate the database")?;
    say(&match applied {
        0 => "the database is up to date".to_owned(),
        1 => "1 migration applied".to_owned(),
        n => format!("{n} migrations applied"),
    })?;
    Ok(())
}
