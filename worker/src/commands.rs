//! The commands, one file each.

mod account;
mod console;
mod database;
mod demo;
mod healthcheck;
mod input;
mod keys;
mod migrate;
mod publish;
mod simulate;
mod speech;
mod status_line;
mod tenant;
mod token;
mod watch;
mod worker;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::{Cli, Command};
use crate::config::UsageError;
use crate::output::print_error;
use crate::telemetry;

/// Why a command failed.
pub(crate) enum CommandError {
    /// Arguments that can't be used: exit with 2.
    Usage(UsageError),
    /// A step failed: exit with 1.
    Failed(anyhow::Error),
    /// The command has printed what failed: exit with 1.
    Reported,
}

/// Runs a command. Returns the exit code: 0 done, 1 failed, 2 wrong usage.
pub async fn run(cli: Cli) -> ExitCode {
    let default_levels = match &cli.command {
        Command::Worker(_) | Command::Console(_) | Command::Simulate(_) => "info",
        // The demo prints statuses; the log would repeat them.
        Command::Demo(_) => "error",
        _ => "warn",
    };
    if let Err(problem) = telemetry::start(&cli.logging, default_levels) {
        print_error(&problem);
        return ExitCode::from(2);
    }
    let result = match cli.command {
        Command::Worker(args) => worker::run(&args).await,
        Command::Migrate(args) => migrate::run(&args).await,
        Command::Database(args) => database::run(args).await,
        Command::Keys(args) => keys::run(args),
        Command::Tenant(args) => tenant::run(*args).await,
        Command::Account(args) => account::run(args).await,
        Command::Publish(args) => publish::run(*args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Speech(args) => speech::run(args).await,
        Command::Console(args) => console::run(&args).await,
        Command::Token(args) => token::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Healthcheck(args) => healthcheck::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Usage(error)) => {
            print_error(&error.to_string());
            ExitCode::from(2)
        }
        Err(CommandError::Failed(error)) => {
            print_error(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        Err(CommandError::Reported) => ExitCode::FAILURE,
    }
}

impl From<UsageError> for CommandError {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Tokens that SIGTERM and SIGINT cancel: the first signal cancels the first token, which asks for
/// a graceful shutdown; the second signal cancels the second, which stops at once.
pub(crate) fn shutdown_signals() -> (CancellationToken, CancellationToken) {
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let tokens = [soft.clone(), hard.clone()];
    TaskTracker::new().spawn(async move {
        for token in tokens {
            wait_for_signal().await;
            token.cancel();
        }
    });
    (soft, hard)
}

async fn wait_for_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
