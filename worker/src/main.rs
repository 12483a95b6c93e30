//! `voice-otp`: one-time passwords by phone call.

use std::process::ExitCode;

use clap::Parser as _;
use voice_otp_worker::cli::Cli;

/// The C library's took a third of a busy worker's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for everything that speaks TLS here. It fails only if there is one already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            voice_otp_worker::telemetry::complain(&format!("can't start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(voice_otp_worker::run(cli))
}
