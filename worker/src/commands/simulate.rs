//! `voice-otp simulate`.

use anyhow::Context as _;
use voice_otp_simulator::{Account, Settings, Simulator};

use super::{CommandError, shutdown_signals};
use crate::args::Simulate;
use crate::config::UsageError;
use crate::output::print_line;

/// The account of a simulator without `--accounts`. Its token is no secret: it is valid in the
/// simulator only.
const ACCOUNT_SID: &str = "ACdddddddddddddddddddddddddddddddd";
const AUTH_TOKEN: &str = "dddddddddddddddddddddddddddddddd";
const FROM: &str = "+12025550100";

pub(super) async fn run(args: Simulate) -> Result<(), CommandError> {
    if !(args.speed.is_finite() && (0.01..=1000.0).contains(&args.speed)) {
        return Err(CommandError::Usage(UsageError(vec![
            "--speed: 0.01 to 1000".to_owned(),
        ])));
    }
    let accounts: Vec<Account> = match &args.accounts {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not a JSON array of accounts", file.display()))?
        }
        None => vec![Account {
            numbers: vec![FROM.to_owned()],
            ..Account::new(ACCOUNT_SID, AUTH_TOKEN)
        }],
    };
    let listener = voice_otp_server::listen(&args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the address")?;
    print_line(&format!(
        "Twilio simulator at http://{address} (VOICE_OTP_TWILIO_URL); calls and what was heard: \
         GET /simulator/calls"
    ))?;
    if args.accounts.is_none() {
        print_line(&format!(
            "account {ACCOUNT_SID}, auth token {AUTH_TOKEN}, from {FROM}"
        ))?;
    }
    let (soft, _) = shutdown_signals();
    let simulator = Simulator::new(Settings {
        accounts,
        seed: args.seed,
        speed: args.speed,
    });
    simulator.serve(listener, soft).await.context("serve")?;
    Ok(())
}
