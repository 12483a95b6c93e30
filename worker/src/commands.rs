//! The verbs, a file each.

mod account;
mod console;
mod healthcheck;
mod keys;
mod migrate;
mod publish;
mod simulate;
mod speech;
pub(crate) mod tenant;
mod token;
mod watch;
pub(crate) mod worker;

pub(crate) use publish::now as publish_clock;

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{Cli, Verb};
use crate::config::Wrong;
use crate::telemetry;

/// How a verb ended, if not well.
pub(crate) enum Failed {
    /// It was asked wrongly: exit 2.
    Usage(Wrong),
    /// It didn't go well: exit 1.
    Error(anyhow::Error),
    /// It said already what didn't go well: exit 1.
    Told,
}

/// Runs a verb to its exit code: 0 done, 1 failed, 2 wrong usage.
pub async fn run(cli: Cli) -> ExitCode {
    let usual = match &cli.verb {
        Verb::Worker(_) | Verb::Console(_) | Verb::Simulate(_) => "info",
        // The statuses tell the story there.
        Verb::Demo(_) => "error",
        _ => "warn",
    };
    if let Err(problem) = telemetry::start(&cli.log, usual) {
        telemetry::complain(&problem);
        return ExitCode::from(2);
    }
    let result = match cli.verb {
        Verb::Worker(args) => worker::run(&args).await,
        Verb::Migrate(args) => migrate::run(&args).await,
        Verb::Keys(args) => keys::run(args),
        Verb::Tenant(args) => tenant::run(*args).await,
        Verb::Account(verb) => account::run(verb).await,
        Verb::Publish(args) => publish::run(*args).await,
        Verb::Watch(args) => watch::run(args).await,
        Verb::Speech(verb) => speech::run(verb).await,
        Verb::Console(args) => console::run(&args).await,
        Verb::Token(verb) => token::run(verb).await,
        Verb::Simulate(args) => simulate::run(args).await,
        Verb::Demo(args) => crate::demo::run(args).await,
        Verb::Healthcheck(args) => healthcheck::run(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Usage(wrong)) => {
            telemetry::complain(&wrong.to_string());
            ExitCode::from(2)
        }
        Err(Failed::Error(error)) => {
            telemetry::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
        Err(Failed::Told) => ExitCode::FAILURE,
    }
}

impl From<Wrong> for Failed {
    fn from(wrong: Wrong) -> Self {
        Self::Usage(wrong)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

/// Tokens that signals cancel: the first signal asks to stop, the second to stop at once.
pub(crate) fn signals() -> (CancellationToken, CancellationToken) {
    let (soft, hard) = (CancellationToken::new(), CancellationToken::new());
    let (softly, hardly) = (soft.clone(), hard.clone());
    TaskTracker::new().spawn(async move {
        wait_for_signal().await;
        softly.cancel();
        wait_for_signal().await;
        hardly.cancel();
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
