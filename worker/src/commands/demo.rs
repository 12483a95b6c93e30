//! `voice-otp demo`: real events through a real RabbitMQ and a real Postgres to simulated phones.

mod cases;
mod console_link;
mod environment;
mod performance;
mod report;
mod tenants;

use anyhow::{Context as _, anyhow};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_store::pool::Pool;
use voice_otp_store::{Keyring, connect, migrate};

use super::{CommandError, shutdown_signals, status_line};
use crate::args::Demo;
use crate::config::ArgumentChecker;
use crate::output::print_line;
use console_link::ConsoleLink;
use environment::Environment;

/// The servers that the demo runs on.
struct Servers {
    amqp_url: SecretString,
    database_url: SecretString,
    keys: Keyring,
    pool: Pool,
}

pub(super) async fn run(args: Demo) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let amqp_url = checker.broker(&args.broker, &args.database.cleartext);
    let database_url = checker.database(&args.database);
    let has_keys = args.keys.keys.is_some() || args.keys.keys_file.is_some();
    let keys = if has_keys {
        checker.keys(&args.keys)
    } else {
        Keyring::parse(&Keyring::generate("demo")).ok()
    };
    let simulator = checker.url("--simulator", args.simulator.as_deref());
    let console_url = checker.url("--console", args.console.as_deref());
    if simulator.is_some() && !has_keys {
        checker.reject("VOICE_OTP_KEYS: --simulator needs the keys of the running workers");
    }
    let (amqp_url, database_url, keys) =
        checker.finish(|| Some((amqp_url?, database_url?, keys?)))?;
    let (soft, _) = shutdown_signals();

    let pool = connect(&database_url, 2).context("use the database URL")?;
    migrate::apply(&pool)
        .await
        .context("migrate the database")?;
    let servers = Servers {
        amqp_url,
        database_url,
        keys,
        pool,
    };
    let environment = match simulator {
        Some(simulator) => Environment::attach(simulator, &servers).await?,
        None => Environment::start(&servers).await?,
    };
    let console = if args.once {
        None
    } else if let Some(url) = &console_url {
        Some(ConsoleLink::to_running(url.as_str(), &servers.pool).await?)
    } else {
        Some(ConsoleLink::start(&servers, &environment).await?)
    };
    let result = tokio::select! {
        result = performance::run(&servers.amqp_url, &environment) => result,
        () = soft.cancelled() => Err(anyhow!("interrupted")),
    };
    if !args.once && matches!(result, Ok(true)) {
        continue_until(&soft, &servers, console.as_ref()).await?;
    }
    if let Some(console) = console {
        console.stop().await;
    }
    environment.stop().await;
    if result? {
        Ok(())
    } else {
        Err(CommandError::Reported)
    }
}

/// Says how to publish more, and prints statuses until `soft` is cancelled.
async fn continue_until(
    soft: &CancellationToken,
    servers: &Servers,
    console: Option<&ConsoleLink>,
) -> anyhow::Result<()> {
    print_line(
        "\nThe demo continues until Ctrl-C: publish more in another terminal, \
         after eval \"$(./dev env)\":",
    )?;
    print_line("  voice-otp publish --tenant demo-acme --to +12125550142 --code 493027 --wait")?;
    if let Some(console) = console {
        print_line("")?;
        console.print_sign_in_link(&servers.pool).await?;
    }
    let Ok(mut statuses) = StatusStream::subscribe(&servers.amqp_url, None).await else {
        return Ok(());
    };
    loop {
        tokio::select! {
            next = statuses.next() => match next {
                // It ends when the broker is lost, and when standard output is closed.
                Some((_, event)) if print_line(&status_line::received(&event)).is_ok() => {}
                _ => return Ok(()),
            },
            () = soft.cancelled() => return Ok(()),
        }
    }
}
