//! `voice-otp worker`.

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::{CommandError, shutdown_signals};
use crate::args::Worker;
use crate::{config, service};

pub(super) async fn run(args: &Worker) -> Result<(), CommandError> {
    let settings = config::worker(args)?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("listen on {}", settings.listen))?;
    let (soft, hard) = shutdown_signals();
    service::serve(settings, listener, soft, hard)
        .await
        .map_err(CommandError::Failed)
}
