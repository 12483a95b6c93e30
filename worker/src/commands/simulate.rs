//! `voice-otp simulate`.

use anyhow::Context as _;
use tokio::net::TcpListener;
use voice_otp_twilio::simulator::{Account, Settings, Simulator};

use crate::cli::Simulate;
use crate::config::Wrong;
use crate::telemetry::say;
use crate::verb::{Failed, signals};

/// The account that stands for itself where no file names others. Not a secret: it opens nothing but the simulator.
pub(crate) const ACCOUNT_SID: &str = "ACdddddddddddddddddddddddddddddddd";
pub(crate) const AUTH_TOKEN: &str = "dddddddddddddddddddddddddddddddd";
pub(crate) const FROM: &str = "+12025550100";

pub(crate) async fn run(args: Simulate) -> Result<(), Failed> {
    if !(args.speed.is_finite() && (0.01..=1000.0).contains(&args.speed)) {
        return Err(Failed::Usage(Wrong(vec![
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
        None => vec![account()],
    };
    let listener = TcpListener::bind(&args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    let address = listener.local_addr().context("read the address")?;
    say(&format!(
        "Twilio simulated at http://{address} (VOICE_OTP_TWILIO_URL); what was said: GET /simulator/calls"
    ))?;
    if args.accounts.is_none() {
        say(&format!(
            "account {ACCOUNT_SID}, auth token {AUTH_TOKEN}, from {FROM}"
        ))?;
    }
    let (soft, _) = signals();
    let simulator = Simulator::new(Settings {
        accounts,
        seed: args.seed,
        speed: args.speed,
    });
    simulator.serve(listener, soft).await.context("serve")?;
    Ok(())
}

fn account() -> Account {
    Account {
        numbers: vec![FROM.to_owned()],
        ..Account::new(ACCOUNT_SID, AUTH_TOKEN)
    }
}
