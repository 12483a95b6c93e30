//! `voice-otp publish`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;
use voice_otp_publisher::{Publisher, Settings, event};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{
    Context as RequestContext, DeliveryId, Locale, OtpCode, PhoneNumber, Refused, TenantId,
    Timestamp, UserRef,
};
use zeroize::Zeroizing;

use crate::cli::Publish;
use crate::config::Checks;
use crate::tail::{Tail, line};
use crate::telemetry::{complain, say};
use crate::verb::{Failed, tenant};

/// How long after a code's end its final status is waited for: the worker gives a call up after five minutes.
const WAIT_AFTER: Duration = Duration::from_mins(6);
/// The most events that are on their way to the broker at once.
const WINDOW: usize = 512;

pub(crate) async fn run(args: Publish) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let url = checks.broker(&args.broker);
    if let Some(file) = &args.file {
        let url = checks.done(url)?;
        return publish_file(&url, file).await;
    }
    let request = request(&args, &mut checks);
    let (url, request) = checks.done(url.zip(request))?;
    publish_one(&url, &request, args.wait).await
}

fn request(args: &Publish, checks: &mut Checks) -> Option<Requested> {
    fn parsed<T>(
        checks: &mut Checks,
        flag: &str,
        text: Option<&str>,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        text.and_then(|text| {
            parse(text)
                .map_err(|error| checks.wrong(format!("{flag}: {error}")))
                .ok()
        })
    }
    let code = args
        .code
        .as_deref()
        .map(SecretString::from)
        .or_else(|| tenant::secret(checks, "--code-file", args.code_file.as_deref()));
    if code.is_none() && args.code_file.is_none() {
        checks.wrong("--code or --code-file is missing");
    }
    let expires_in = checks.duration(
        "--expires-in",
        &args.expires_in,
        Duration::from_secs(1),
        Duration::from_hours(1),
    );
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string());
    let now = now();
    let tenant_id = parsed(checks, "--tenant", args.tenant.as_deref(), TenantId::parse);
    let to = parsed(checks, "--to", args.to.as_deref(), PhoneNumber::parse);
    let code = parsed(
        checks,
        "--code",
        code.as_ref().map(ExposeSecret::expose_secret),
        OtpCode::parse,
    );
    let delivery_id = parsed(checks, "--id", Some(&id), DeliveryId::parse);
    let locale = parsed(checks, "--locale", args.locale.as_deref(), Locale::parse);
    let user_ref = parsed(
        checks,
        "--user-ref",
        args.user_ref.as_deref(),
        UserRef::parse,
    );
    Some(Requested {
        tenant_id: tenant_id?,
        delivery_id: delivery_id?,
        to: to?,
        code: code?,
        expires_at: now + expires_in?,
        locale,
        user_ref,
        extension: None,
        context: RequestContext::default(),
        time: Some(now),
        trace: Trace::default(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a publisher's clock is its machine's"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

/// Publishes a request; follows its statuses to the end, if wanted: only `delivered` is a success then.
pub(super) async fn publish_one(
    url: &SecretString,
    request: &Requested,
    wait: bool,
) -> Result<(), Failed> {
    // Before the request goes, or its first statuses are missed.
    let tail = if wait {
        Some(Tail::start(url, Some(request.tenant_id.as_str())).await?)
    } else {
        None
    };
    let publisher = Publisher::start(Settings::new(url.clone(), "/voice-otp/cli"))
        .context("use the broker URL")?;
    let published = publisher.request(request).await;
    publisher.close().await;
    published.context("publish the request")?;
    say(&format!(
        "published {} for {} to {}",
        request.delivery_id, request.tenant_id, request.to
    ))?;
    let Some(mut tail) = tail else { return Ok(()) };
    let until = (request.expires_at - now()).to_std().unwrap_or_default() + WAIT_AFTER;
    let following = async {
        while let Some(event) = tail.next_status().await {
            if event.data.delivery_id == request.delivery_id {
                say(&line(&event))?;
                if event.data.is_final {
                    return Ok(event.data.status);
                }
            }
        }
        Err(anyhow!(
            "the connection to the broker was lost; the delivery goes on"
        ))
    };
    match tokio::time::timeout(until, following).await {
        Ok(Ok(Status::Delivered)) => Ok(()),
        Ok(Ok(_)) => Err(Failed::Told),
        Ok(Err(error)) => Err(Failed::Error(error)),
        Err(_) => Err(Failed::Error(anyhow!(
            "no final status in time: is a worker running?"
        ))),
    }
}

async fn publish_file(url: &SecretString, file: &Path) -> Result<(), Failed> {
    let reader: Box<dyn std::io::BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened =
            std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
        Box::new(std::io::BufReader::new(opened))
    };
    let lines: Vec<Zeroizing<String>> = reader
        .lines()
        .map(|line| line.map(Zeroizing::new))
        .collect::<Result<_, _>>()
        .context("read the events")?;
    let publisher = Publisher::start(Settings::new(url.clone(), "/voice-otp/cli"))
        .context("use the broker URL")?;
    let bar = bar(lines.len());
    let (mut stored, mut bad) = (0_u64, 0_u64);
    let mut on_the_way = FuturesOrdered::new();
    let tell =
        |number: usize, result: Result<(), event::EventError>, bad: &mut u64, stored: &mut u64| {
            bar.inc(1);
            match result {
                Ok(()) => *stored += 1,
                Err(error) => {
                    *bad += 1;
                    bar.suspend(|| complain(&format!("line {number}: {error}")));
                }
            }
        };
    for (number, text) in (1..).zip(lines) {
        if text.trim().is_empty() {
            bar.inc(1);
            continue;
        }
        if on_the_way.len() >= WINDOW
            && let Some((number, result)) = on_the_way.next().await
        {
            tell(number, result, &mut bad, &mut stored);
        }
        let publisher = &publisher;
        match event::message(Zeroizing::new(text.as_bytes().to_vec())) {
            Ok(message) => on_the_way.push_back(async move {
                (number, publisher.publish(message).await.map_err(Into::into))
            }),
            Err(error) => tell(number, Err(error), &mut bad, &mut stored),
        }
    }
    while let Some((number, result)) = on_the_way.next().await {
        tell(number, result, &mut bad, &mut stored);
    }
    bar.finish_and_clear();
    publisher.close().await;
    say(&format!("{stored} published, {bad} not"))?;
    if bad > 0 { Err(Failed::Told) } else { Ok(()) }
}

fn bar(lines: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from(lines).unwrap_or(0));
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}
