//! An auth service that signs people in with a code by telephone: to be copied.
//!
//! It asks for a call, tells what becomes of it, and takes the request back when the person gives up (Ctrl-C).
//!
//! Its spool has a key of its own, made with `voice-otp keys new`: never the workers', which open every tenant's credentials.
//!
//! ```console
//! $ export LOGIN_SPOOL_KEYS=$(voice-otp keys new) LOGIN_SPOOL_FILE=$PWD/login.spool
//! $ cargo run -p voice-otp-publisher --features spool --example login -- acme +12125550142
//! ```
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an auth service talks to whoever runs it, and has a clock and an environment of its own"
)]

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, Consumer};
use rand::RngExt as _;
use voice_otp_publisher::{Kept, Publisher, Settings, Spool, spool, topology};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::keys::Keyring;
use voice_otp_schemas::request::{Cancelled, Requested, Target};
use voice_otp_schemas::status::{Status, StatusEvent};
use voice_otp_schemas::{Context, DeliveryId, OtpCode, PhoneNumber, TenantId, Timestamp};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (tenant, to) = args
        .next()
        .zip(args.next())
        .context("usage: login TENANT +1NUMBER")?;
    let url = variable("VOICE_OTP_AMQP_URL")?;

    // One publisher for the whole service. The file keeps requests while the broker is away.
    let publisher = Publisher::start(Settings::new(url.clone().into(), "/auth/login"))?;
    let keys = Keyring::parse(&variable("LOGIN_SPOOL_KEYS")?.into())?;
    let spool = Spool::start(
        publisher.clone(),
        spool::Settings::new(variable("LOGIN_SPOOL_FILE")?, keys),
    )
    .await?;

    let request = request(&tenant, &to)?;
    // Bound before the request goes, so that no status is missed.
    let mut statuses = statuses(&url, &tenant).await?;
    match spool.request(&request).await? {
        Kept::Broker => println!("asked for a call; the code is {}", request.code.expose()),
        Kept::File => println!("the broker is away: the request is kept, and sent when it is back"),
    }
    let gave_up = tokio::signal::ctrl_c();
    tokio::pin!(gave_up);
    let mut seen = 0;
    loop {
        let delivery = tokio::select! {
            delivery = statuses.next() => delivery.context("the broker ended the consumer")??,
            _ = &mut gave_up => {
                let target = Target::Delivery(request.delivery_id.clone());
                let cancelled = Cancelled { tenant_id: request.tenant_id.clone(), target };
                spool.cancel(&format!("{}-cancel", request.delivery_id), &cancelled, &Trace::default()).await?;
                println!("taken back");
                break;
            }
        };
        let Ok(event) = serde_json::from_slice::<StatusEvent>(&delivery.data) else {
            continue;
        };
        // At least once, in order of `sequence`: what is no newer has been seen.
        if event.data.delivery_id != request.delivery_id || event.data.sequence <= seen {
            continue;
        }
        seen = event.data.sequence;
        println!("{}: {}", event.data.status, what_to_do(&event));
        if event.data.is_final {
            break;
        }
    }
    spool.close().await;
    publisher.close().await;
    Ok(())
}

/// What an auth service does about a status.
fn what_to_do(event: &StatusEvent) -> &'static str {
    match event.data.status {
        Status::Accepted | Status::Placed => "tell the person that the call is coming",
        Status::Delivered => "wait for the code",
        Status::HungUp | Status::Busy | Status::NoAnswer => {
            "offer another call, or another channel"
        }
        _ if event.data.is_final => "use another channel",
        _ => "nothing",
    }
}

fn request(tenant: &str, to: &str) -> anyhow::Result<Requested> {
    let now: Timestamp = SystemTime::now().into();
    let code = format!("{:06}", rand::rng().random_range(0..1_000_000));
    Ok(Requested {
        tenant_id: TenantId::parse(tenant).context("the tenant")?,
        // Unique, and the same whenever this very request is published again.
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

/// The tenant's statuses, on a queue of this connection's own.
async fn statuses(url: &str, tenant: &str) -> anyhow::Result<Consumer> {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .context("connect to RabbitMQ")?;
    let channel = connection.create_channel().await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), own, FieldTable::default())
        .await?;
    let key = format!("status.*.{tenant}");
    let (name, none) = (queue.name().clone(), FieldTable::default());
    channel
        .queue_bind(
            name.clone(),
            topology::STATUS.into(),
            key.as_str().into(),
            QueueBindOptions::default(),
            none,
        )
        .await?;
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    Ok(channel
        .basic_consume(name, "".into(), options, FieldTable::default())
        .await?)
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is missing"))
}
