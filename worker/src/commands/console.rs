//! `voice-otp console`.

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::cli::Console;
use crate::config::Checks;
use crate::console::{Settings, serve};
use crate::verb::{Failed, signals};

pub(super) async fn run(args: &Console) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let (amqp_url, database_url) = (checks.broker(&args.broker), checks.database(&args.database));
    let keys = checks.keys(&args.sealing);
    let (twilio_url, public_url) = checks.reach(&args.reach);
    let https = match args.https.as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => {
            checks.wrong("VOICE_OTP_CONSOLE_HTTPS: true or false");
            None
        }
    };
    let all = amqp_url.zip(database_url).zip(keys).zip(https);
    let settings = all.map(|(((amqp_url, database_url), keys), https)| Settings {
        amqp_url,
        database_url,
        keys,
        twilio_url,
        public_url,
        https,
    });
    let settings = checks.done(settings)?;
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the address")?;
    if !address.ip().is_loopback() && !settings.https {
        tracing::warn!(%address, "the console is served in the clear beyond this machine: put a proxy with https before it, and VOICE_OTP_CONSOLE_HTTPS");
    }
    tracing::info!(%address, "console started");
    let (soft, _) = signals();
    serve(settings, listener, soft).await.map_err(Failed::Error)
}
