//! `voice-otp publish`: one request from arguments, or events from a file.

mod file;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;
use voice_otp_publisher::statuses::StatusStream;
use voice_otp_publisher::{Publisher, Settings, clock};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{
    Context as RequestContext, DeliveryId, Locale, OtpCode, PhoneNumber, TenantId, UserRef,
};

use super::input::read_secret;
use super::{CommandError, status_line};
use crate::args::Publish;
use crate::config::ArgumentChecker;
use crate::output::print_line;

/// The CloudEvents source of events that these commands publish.
const SOURCE: &str = "/voice-otp/cli";
/// How long after a code's expiry its final status is waited for. A worker stops following a call
/// after five minutes.
const WAIT_AFTER_EXPIRY: Duration = Duration::from_mins(6);

pub(super) async fn run(args: Publish) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let url = checker.broker(&args.broker, &args.cleartext);
    if let Some(file) = &args.file {
        let url = checker.finish(|| url)?;
        return file::publish(&url, file).await;
    }
    let request = request(&args, &mut checker);
    let (url, request) = checker.finish(|| Some((url?, request?)))?;
    publish_one(&url, &request, args.wait).await
}

fn request(args: &Publish, checker: &mut ArgumentChecker) -> Option<Requested> {
    let code = args
        .code
        .as_deref()
        .map(SecretString::from)
        .or_else(|| read_secret(checker, "--code-file", args.code_file.as_deref()));
    if code.is_none() && args.code_file.is_none() {
        checker.reject("--code or --code-file is missing");
    }
    let (min, max) = (Duration::from_secs(1), Duration::from_hours(1));
    let expires_in = checker.duration("--expires-in", &args.expires_in, min, max);
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| Uuid::new_v4().to_string());
    let now = clock::now();
    let tenant_id = args
        .tenant
        .as_deref()
        .and_then(|text| checker.parse("--tenant", text, TenantId::parse));
    let to = args
        .to
        .as_deref()
        .and_then(|text| checker.parse("--to", text, PhoneNumber::parse));
    let code = code.and_then(|code| checker.parse("--code", code.expose_secret(), OtpCode::parse));
    let delivery_id = checker.parse("--id", &id, DeliveryId::parse);
    let locale = args
        .locale
        .as_deref()
        .and_then(|text| checker.parse("--locale", text, Locale::parse));
    let user_ref = args
        .user_ref
        .as_deref()
        .and_then(|text| checker.parse("--user-ref", text, UserRef::parse));
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

/// Publishes a request. With `wait` it also prints the statuses until the final one, and every
/// outcome but `delivered` is an error.
pub(super) async fn publish_one(
    url: &SecretString,
    request: &Requested,
    wait: bool,
) -> Result<(), CommandError> {
    // Subscribed before the request is published: otherwise its first statuses could be missed.
    let statuses = if wait {
        let tenant = Some(request.tenant_id.as_str());
        Some(
            StatusStream::subscribe(url, tenant)
                .await
                .context("subscribe to the statuses")?,
        )
    } else {
        None
    };
    let publisher =
        Publisher::start(Settings::new(url.clone(), SOURCE)).context("use the broker URL")?;
    let published = publisher.request(request).await;
    publisher.close().await;
    published.context("publish the request")?;
    print_line(&format!(
        "published {} for {} to {}",
        request.delivery_id, request.tenant_id, request.to
    ))?;
    match statuses {
        Some(statuses) => follow(statuses, request).await,
        None => Ok(()),
    }
}

/// Prints a request's statuses until the final one.
async fn follow(mut statuses: StatusStream, request: &Requested) -> Result<(), CommandError> {
    // Negative once the code has expired, and then there is nothing to add.
    let left = (request.expires_at - clock::now())
        .to_std()
        .unwrap_or(Duration::ZERO);
    let following = async {
        while let Some(event) = statuses.next_status().await {
            if event.data.delivery_id == request.delivery_id {
                print_line(&status_line::status(&event))?;
                if event.data.is_final {
                    return Ok(event.data.status);
                }
            }
        }
        Err(anyhow!(
            "the connection to the broker was lost; the delivery continues"
        ))
    };
    match tokio::time::timeout(left + WAIT_AFTER_EXPIRY, following).await {
        Ok(Ok(Status::Delivered)) => Ok(()),
        Ok(Ok(_)) => Err(CommandError::Reported),
        Ok(Err(error)) => Err(CommandError::Failed(error)),
        Err(_) => Err(CommandError::Failed(anyhow!(
            "no final status was published in time: check that a worker is running"
        ))),
    }
}
