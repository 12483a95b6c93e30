//! `voice-otp console`.

use anyhow::Context as _;
use voice_otp_console::{Settings, serve};
use voice_otp_store::grants::Program;

use super::{CommandError, shutdown_signals};
use crate::args::Console;
use crate::config::ArgumentChecker;
use crate::server_check;

pub(super) async fn run(args: &Console) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let amqp_url = checker.broker(&args.broker, &args.database.cleartext);
    let database_url = checker.database(&args.database);
    let keys = checker.keys(&args.keys);
    let (twilio_url, public_url) = checker.twilio_urls(&args.twilio);
    let trusted_proxies = checker.trusted_proxies(&args.trusted_proxies);
    let settings = checker.finish(|| {
        Some(Settings {
            amqp_url: amqp_url?,
            database_url: database_url?,
            keys: keys?,
            twilio_url,
            public_url,
            https: args.https,
            trusted_proxies: trusted_proxies?,
        })
    })?;
    server_check::once(&settings.database_url, Program::Console).await?;
    let listener = voice_otp_server::listen(&args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the address")?;
    if !address.ip().is_loopback() && !settings.https {
        tracing::warn!(
            %address,
            "the console is served without encryption beyond this machine: put an https proxy in \
             front of it and set VOICE_OTP_CONSOLE_HTTPS"
        );
    }
    if settings.https && settings.trusted_proxies.is_empty() {
        tracing::warn!(
            "no trusted proxy is set, so all clients behind the https proxy share the limits of \
             one address: set VOICE_OTP_CONSOLE_TRUSTED_PROXIES"
        );
    }
    tracing::info!(%address, "console started");
    let (soft, _) = shutdown_signals();
    serve(settings, listener, soft)
        .await
        .map_err(CommandError::Failed)
}
