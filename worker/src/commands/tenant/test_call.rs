//! `voice-otp tenant test-call`.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rand::RngExt as _;
use serde_json::json;
use uuid::Uuid;
use voice_otp_publisher::link;
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::{Context, DeliveryId, Locale, OtpCode, PhoneNumber, TenantId};
use voice_otp_store::{settings, test_calls};

use super::{open, tenant_id};
use crate::cli::TestCall;
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::Failed;
use crate::verb::publish::{now, publish_one};

/// How long the code is good for, or would be if it were for anything.
const LIFE: Duration = Duration::from_mins(3);

/// A request with a random code, marked so that whoever counts can leave it out.
pub(crate) fn request(
    tenant_id: TenantId,
    to: PhoneNumber,
    locale: Option<Locale>,
) -> anyhow::Result<Requested> {
    let code = format!("{:06}", rand::rng().random_range(0..1_000_000));
    let now = now();
    Ok(Requested {
        tenant_id,
        delivery_id: DeliveryId::parse(&format!("test-call-{}", Uuid::new_v4()))
            .map_err(|error| anyhow!(error))?,
        to,
        code: OtpCode::parse(&code).map_err(|error| anyhow!(error))?,
        expires_at: now + LIFE,
        locale,
        user_ref: None,
        extension: None,
        context: Context::from_json(&json!({ "test_call": "true" }))
            .map_err(|error| anyhow!(error))?,
        time: Some(now),
        trace: Trace::default(),
    })
}

pub(super) async fn run(args: &TestCall) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let id = tenant_id(&mut checks, &args.id);
    let to = PhoneNumber::parse(&args.to)
        .map_err(|error| checks.wrong(format!("--to: {error}")))
        .ok();
    let locale = args
        .locale
        .as_deref()
        .map(Locale::parse)
        .transpose()
        .unwrap_or_else(|error| {
            checks.wrong(format!("--locale: {error}"));
            None
        });
    let (keys, database) = (checks.keys(&args.sealing), checks.database(&args.database));
    let broker = checks.broker(&args.broker);
    let all = id.zip(to).zip(keys).zip(database).zip(broker);
    let ((((id, to), keys), database), broker) = checks.done(all)?;

    let pool = open(Checks::default(), Some(database)).await?;
    let found = settings::load_one(&pool, &keys, &id)
        .await
        .context("read the settings")?;
    let settings =
        found.ok_or_else(|| anyhow!("there is no tenant {id}; voice-otp tenant set makes one"))?;
    let user = link::user(&broker);
    if !settings.may_publish(user.as_deref()) {
        let user = user.unwrap_or_default();
        return Err(Failed::Error(anyhow!(
            "the RabbitMQ user '{user}' may not speak for {id}: voice-otp tenant set --publisher"
        )));
    }
    test_calls::take(&pool, &id)
        .await
        .map_err(|error| match error {
            test_calls::Error::TooMany(_) => Failed::Error(anyhow!("{error}")),
            other => Failed::Error(anyhow::Error::new(other).context("count the test calls")),
        })?;
    let request = request(id, to, locale)?;
    say(&format!(
        "The call reads the code {}: answer, and hear whether it is clear.",
        request.code.expose()
    ))?;
    if settings.test_mode {
        say("The tenant is in test mode, so nothing is called in truth.")?;
    }
    publish_one(&broker, &request, true).await
}
