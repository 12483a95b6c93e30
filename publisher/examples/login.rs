//! An example auth service that signs users in with a code by telephone call, to copy from.
//!
//! It requests a call, prints what becomes of it, and cancels the request when the user gives up
//! (Ctrl-C).
//!
//! The spool has a key of its own, made with `voice-otp keys new`. Never use the workers' keys,
//! which open every tenant's credentials.
//!
//! ```console
//! $ export LOGIN_SPOOL_KEYS=$(voice-otp keys new) LOGIN_SPOOL_FILE=$PWD/login.spool
//! $ cargo run -p voice-otp-publisher --features spool --example login -- acme +12125550142
//! ```
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an auth service prints, and reads its own environment"
)]

use std::time::Duration;

use anyhow::Context as _;
use rand::RngExt as _;
use secrecy::SecretString;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_publisher::{Publisher, Settings, Spool, StoredIn, clock, spool};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::keys::Keyring;
use voice_otp_schemas::request::{Cancelled, Requested, Target};
use voice_otp_schemas::status::{Status, StatusEvent};
use voice_otp_schemas::{Context, DeliveryId, OtpCode, PhoneNumber, TenantId};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (tenant, to) = args
        .next()
        .zip(args.next())
        .context("usage: login TENANT +1NUMBER")?;
    let url = SecretString::from(variable("VOICE_OTP_AMQP_URL")?);

    // One publisher for the whole service. The file stores requests during an outage of the broker.
    let publisher = Publisher::start(Settings::new(url.clone(), "/auth/login"))?;
    let keys = Keyring::parse(&variable("LOGIN_SPOOL_KEYS")?.into())?;
    let settings = spool::Settings::new(variable("LOGIN_SPOOL_FILE")?, keys);
    let spool = Spool::start(publisher.clone(), settings).await?;

    let request = request(&tenant, &to)?;
    // Subscribe before the request is published, so that no status is missed.
    let mut statuses = StatusStream::subscribe(&url, Some(&tenant)).await?;
    match spool.request(&request).await? {
        StoredIn::Broker => println!("requested a call; the code is {}", request.code.expose()),
        StoredIn::File => {
            println!("the broker is unreachable; the request will be published later");
        }
    }
    let gave_up = tokio::signal::ctrl_c();
    tokio::pin!(gave_up);
    let mut last_sequence = 0;
    loop {
        let event = tokio::select! {
            event = statuses.next_status() => event.context("the broker closed the connection")?,
            _ = &mut gave_up => {
                cancel(&spool, &request).await?;
                println!("cancelled");
                break;
            }
        };
        // Statuses come at least once: drop duplicates and older ones by their sequence.
        let data = &event.data;
        if data.delivery_id != request.delivery_id || data.sequence <= last_sequence {
            continue;
        }
        last_sequence = data.sequence;
        println!("{}: {}", data.status, what_to_do(&event));
        if data.is_final {
            break;
        }
    }
    spool.close().await;
    publisher.close().await;
    Ok(())
}

/// What an auth service does on a status.
fn what_to_do(event: &StatusEvent) -> &'static str {
    match event.data.status {
        Status::Accepted | Status::Placed => "tell the user that the call is coming",
        Status::Delivered => "wait for the code",
        Status::HungUp | Status::Busy | Status::NoAnswer => {
            "offer another call, or another channel"
        }
        _ if event.data.is_final => "use another channel",
        _ => "nothing",
    }
}

fn request(tenant: &str, to: &str) -> anyhow::Result<Requested> {
    let now = clock::now();
    let code = format!("{:06}", rand::rng().random_range(0..1_000_000));
    Ok(Requested {
        tenant_id: TenantId::parse(tenant).context("the tenant")?,
        // Unique for each request. Publishing the same request again uses the same id.
        delivery_id: DeliveryId::parse(&format!("login-{}", uuid::Uuid::new_v4()))?,
        to: PhoneNumber::parse(to).context("the number")?,
        code: OtpCode::parse(&code)?,
        expires_at: now + Duration::from_mins(3),
        locale: None,
        user_ref: None,
        extension: None,
        context: Context::default(),
        time: Some(now),
        trace: Trace::default(),
    })
}

async fn cancel(spool: &Spool, request: &Requested) -> anyhow::Result<StoredIn> {
    let cancelled = Cancelled {
        tenant_id: request.tenant_id.clone(),
        target: Target::Delivery(request.delivery_id.clone()),
        time: Some(clock::now()),
    };
    let event_id = format!("{}-cancel", request.delivery_id);
    Ok(spool
        .cancel(&event_id, &cancelled, &Trace::default())
        .await?)
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is missing"))
}
