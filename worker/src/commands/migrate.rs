//! `voice-otp migrate`.

use anyhow::{Context as _, anyhow};
use voice_otp_store::{DatabaseUrl, grants, migrate, pooler};

use super::CommandError;
use crate::args::Migrate;
use crate::config::ArgumentChecker;
use crate::output::print_line;

pub(super) async fn run(args: &Migrate) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let url = checker.database(&args.database);
    let url = checker.finish(|| url)?;
    let pool = voice_otp_store::connect(&url, 1).context("use the database URL")?;
    let parsed = DatabaseUrl::parse(&url).context("use the database URL")?;
    if let Err(error @ pooler::Error::Pooler(_)) = pooler::check(&parsed).await {
        return Err(anyhow::Error::from(error).into());
    }
    let applied = match migrate::apply(&pool).await {
        Ok(applied) => applied,
        Err(error) => {
            let error = match grants::explain(&error) {
                Some(reason) => anyhow!(reason),
                None => error.into(),
            };
            return Err(error.context("migrate the database").into());
        }
    };
    let counted = |n: usize, what: &str| match n {
        0 => None,
        1 => Some(format!("1 {what}")),
        n => Some(format!("{n} {what}s")),
    };
    let parts = [
        counted(applied.migrations, "migration"),
        counted(applied.functions, "function"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    print_line(&if parts.is_empty() {
        "the database is up to date".to_owned()
    } else {
        format!("{} applied", parts.join(" and "))
    })?;
    Ok(())
}
