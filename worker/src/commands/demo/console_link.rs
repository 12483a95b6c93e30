//! The console beside a demo: started for it, or running elsewhere.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use voice_otp_console::{Settings, serve};
use voice_otp_server::client_address::TrustedProxies;
use voice_otp_store::access::{self, Role};
use voice_otp_store::pool::Pool;

use super::Servers;
use super::environment::Environment;
use crate::output::print_line;

/// The console's default port, then any free one.
const PORTS: [u16; 2] = [8081, 0];
/// The validity of the operator's token, longer than a demo is watched.
const TOKEN_VALIDITY: Duration = Duration::from_hours(24);

/// A console, and an operator's token for it.
pub(super) struct ConsoleLink {
    /// Without a path.
    url: String,
    token: Uuid,
    /// Stops the console, if the demo has started it.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ConsoleLink {
    /// Starts a console, and prints a link to it.
    pub(super) async fn start(
        servers: &Servers,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let (twilio_url, public_url) = environment.urls();
        let settings = Settings {
            amqp_url: servers.amqp_url.clone(),
            database_url: servers.database_url.clone(),
            keys: servers.keys.clone(),
            twilio_url: Some(twilio_url),
            public_url,
            https: false,
            trusted_proxies: TrustedProxies::default(),
        };
        let addresses = PORTS.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let listener = TcpListener::bind(&addresses[..])
            .await
            .context("listen for the console")?;
        let address = listener
            .local_addr()
            .context("read the console's address")?;
        let link = Self::to_running(&format!("http://{address}"), &servers.pool).await?;
        let serving = serve(settings, listener, link.stop.clone());
        link.tasks.spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(
                    error = &*error as &dyn std::error::Error,
                    "the console failed"
                );
            }
        });
        Ok(link)
    }

    /// Prints a link to a console that runs at this URL.
    pub(super) async fn to_running(url: &str, pool: &Pool) -> anyhow::Result<Self> {
        let (token, _) = access::create(pool, "demo", &Role::Operator, TOKEN_VALIDITY)
            .await
            .context("create a token")?;
        let link = Self {
            url: url.trim_end_matches('/').to_owned(),
            token,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        link.print_sign_in_link(pool).await?;
        Ok(link)
    }

    /// Prints a link that signs in once. Its code is in the fragment, which browsers don't send to
    /// servers.
    pub(super) async fn print_sign_in_link(&self, pool: &Pool) -> anyhow::Result<()> {
        let code = access::sign_in_code(pool, self.token)
            .await
            .context("create a sign-in link")?;
        print_line(&format!(
            "Console: {}  sign-in link, valid once and for one minute:",
            self.url
        ))?;
        print_line(&format!(
            "  {}/sign-in#code={}",
            self.url,
            code.expose_secret()
        ))
    }

    /// Stops the console, if the demo has started it.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
