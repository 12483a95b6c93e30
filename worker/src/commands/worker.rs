//! `voice-otp worker`.

use anyhow::Context as _;

use super::{CommandError, shutdown_signals};
use crate::args::Worker;
use crate::{config, service};

pub(super) async fn run(args: &Worker) -> Result<(), CommandError> {
    let settings = config::worker(args)?;
    let listener = voice_otp_server::listen(&settings.listen)
        .await
        .with_context(|| format!("listen on {}", settings.listen))?;
    let (soft, hard) = shutdown_signals();
    service::serve(settings, listener, soft, hard)
        .await
        .map_err(CommandError::Failed)
}
