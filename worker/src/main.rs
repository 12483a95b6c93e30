//! `voice-otp`: one-time passwords by phone call.

use std::process::ExitCode;

use clap::Parser as _;
use voice_otp_worker::args::Cli;
use voice_otp_worker::output::print_error;

/// The C library's allocator took a third of a busy worker's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for every client in this process. The call fails only if one is installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&format!("error: start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(voice_otp_worker::run(cli))
}
