//! The part of Twilio's REST API that placing and following calls needs.
//!
//! The number called stands in the call list's query, so no error here carries a URL.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use voice_otp::account::CallSid;
use voice_otp::answer::Turn;
use voice_otp::delivery::AttemptId;
use voice_otp::delivery::Price;
use voice_otp::failure::{CallFailure, Class, Fault};
use voice_otp::policy::Voicemail;
use voice_otp::ports::{CallOrder, Caller, Speech};
use voice_otp::progress::{Call, CallStatus};
use voice_otp::settings::{Region, VoiceSettings};
use voice_otp_schemas::PhoneNumber;

use crate::catalogue::{Refusal, classify};
use crate::twiml;

/// How to reach Twilio.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Instead of `https://api.twilio.com` and its regions: the simulator, or a proxy.
    pub base_url: Option<Url>,
    /// Where Twilio reaches us, without a path. None: no callbacks.
    pub public_url: Option<Url>,
    /// The longest a connection may take to be made.
    pub connect_timeout: Duration,
    /// The longest an answer may take, connecting included.
    pub timeout: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("make an HTTP client")]
pub struct Error(#[source] reqwest::Error);

/// Twilio's REST API, over connections that are kept alive.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
}

/// The most calls on a page of Twilio's list (<https://www.twilio.com/docs/voice/api/call-resource>).
const LARGEST_PAGE: usize = 1_000;
/// The most pages that are read to find calls: what isn't on them is looked up one by one.
const MOST_PAGES: usize = 5;
/// The longest `Retry-After` that is believed.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// Where a worker answers a probe of its public URL.
pub const PROBE_PATH: &str = "/twilio/status/probe";
/// What it answers.
pub const PROBE_ANSWER: &str = "voice-otp probe: ok\n";

/// Twilio's connection overrides for our callbacks: it tries again up to three times, whatever went wrong. Its default
/// is one more try, and only when no connection could be made
/// (<https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>).
const CALLBACK_OVERRIDES: &str = "rc=3&rp=all";

impl Client {
    /// Makes a client. A rustls crypto provider must have been installed in the process.
    ///
    /// # Errors
    /// [`Error`] when the system's certificates or resolver can't be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("voice-otp/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .pool_max_idle_per_host(512)
            .pool_idle_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            // A POST that is redirected and sent again could make two calls.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error)?;
        Ok(Self { http, settings })
    }

    /// Where an attempt's callbacks go, as Twilio signs it: without the overrides.
    pub fn callback_url(&self, attempt: AttemptId) -> Option<String> {
        self.public(&format!("/twilio/status/{}", attempt.0.simple()))
    }

    /// Where a call asks what to say, as Twilio signs it.
    pub fn voice_url(&self, attempt: AttemptId, turn: Turn) -> Option<String> {
        self.public(&format!(
            "/twilio/voice/{}{}",
            attempt.0.simple(),
            turn.query()
        ))
    }

    /// The same as Twilio is told it, with what makes it try again.
    pub fn voice_action(&self, attempt: AttemptId, turn: Turn) -> Option<String> {
        Some(format!(
            "{}#{CALLBACK_OVERRIDES}",
            self.voice_url(attempt, turn)?
        ))
    }

    /// A request about something of the tenant's account: `Calls`, or a path below it.
    pub(crate) fn ask(
        &self,
        method: Method,
        tenant: &VoiceSettings,
        resource: &str,
    ) -> Result<RequestBuilder, CallFailure> {
        let path = format!(
            "/2010-04-01/Accounts/{}/{resource}.json",
            tenant.account_sid
        );
        Ok(authorized(
            self.request(method, "api", &path, tenant.region.as_ref())?,
            tenant,
        ))
    }

    /// A request for the next page of a list: Twilio gives the path and the query.
    fn ask_next(&self, tenant: &VoiceSettings, uri: &str) -> Result<RequestBuilder, CallFailure> {
        // The credentials go with it, so it must not lead elsewhere.
        if !uri.starts_with("/2010-04-01/Accounts/") {
            return Err(ours("Twilio's next page is elsewhere"));
        }
        Ok(authorized(
            self.request(Method::GET, "api", uri, tenant.region.as_ref())?,
            tenant,
        ))
    }

    /// A request to one of Twilio's products (`api`, `voice`), where the region has it, without credentials.
    pub(crate) fn request(
        &self,
        method: Method,
        product: &str,
        path: &str,
        region: Option<&Region>,
    ) -> Result<RequestBuilder, CallFailure> {
        let host = match region {
            Some(region) => format!("{product}.{region}.twilio.com"),
            None => format!("{product}.twilio.com"),
        };
        let base = self
            .settings
            .base_url
            .as_ref()
            .map(|base| base.as_str().trim_end_matches('/'));
        let url = base.map_or_else(
            || format!("https://{host}{path}"),
            |base| format!("{base}{path}"),
        );
        let request = self.http.request(
            method,
            Url::parse(&url).map_err(|_| ours("the Twilio URL is not valid"))?,
        );
        // Who stands in for Twilio may want to know which of its hosts was meant.
        Ok(if base.is_some() {
            request.header("x-forwarded-host", host)
        } else {
            request
        })
    }

    /// Where the worker's public URL is probed, as it is signed. None: there is no public URL.
    pub fn probe_url(&self) -> Option<String> {
        self.public(PROBE_PATH)
    }

    fn public(&self, path: &str) -> Option<String> {
        let base = self.settings.public_url.as_ref()?;
        Some(format!("{}{path}", base.as_str().trim_end_matches('/')))
    }

    /// Posts a form to the worker's public URL, as Twilio would.
    pub(crate) fn post_public(&self, url: &str, params: &[(String, String)]) -> RequestBuilder {
        self.http.post(url).form(params)
    }

    fn form(
        &self,
        tenant: &VoiceSettings,
        order: &CallOrder<'_>,
    ) -> Result<Vec<(&'static str, String)>, CallFailure> {
        let mut form = vec![
            ("To", order.to.expose().to_owned()),
            ("From", tenant.from.expose().to_owned()),
            (
                "Timeout",
                order.ring_timeout.as_secs().clamp(5, 600).to_string(),
            ),
            ("TimeLimit", order.limit.as_secs().max(1).to_string()),
        ];
        match order.speech {
            Speech::Inline(script) => {
                form.push((
                    "Twiml",
                    twiml::render(script).map_err(|_| ours("the TwiML is too long"))?,
                ));
            }
            Speech::Ask(policy) => {
                let url = self.voice_action(order.attempt_id, Turn::Answered(policy));
                let url =
                    url.ok_or_else(|| ours("there is no public URL for the call to ask at"))?;
                form.push(("Url", url));
                form.push(("Method", "POST".to_owned()));
                match policy {
                    Voicemail::Speak | Voicemail::PressKey => {}
                    Voicemail::HangUp => form.push(("MachineDetection", "Enable".to_owned())),
                    Voicemail::WaitForBeep => {
                        form.push(("MachineDetection", "DetectMessageEnd".to_owned()))
                    }
                }
            }
        }
        if let Some(extension) = order.extension {
            form.push(("SendDigits", extension.to_owned()));
        }
        if let Some(url) = self.callback_url(order.attempt_id) {
            form.push(("StatusCallback", format!("{url}#{CALLBACK_OVERRIDES}")));
            form.push(("StatusCallbackMethod", "POST".to_owned()));
            for event in ["initiated", "ringing", "answered", "completed"] {
                form.push(("StatusCallbackEvent", event.to_owned()));
            }
        }
        Ok(form)
    }
}

impl Caller for Client {
    fn has_callbacks(&self) -> bool {
        self.settings.public_url.is_some()
    }

    async fn place(
        &self,
        tenant: &VoiceSettings,
        order: &CallOrder<'_>,
    ) -> Result<Call, CallFailure> {
        let form = self.form(tenant, order)?;
        let answer = Answer::of(self.ask(Method::POST, tenant, "Calls")?.form(&form)).await?;
        answer.parse::<CallResource>()?.call()
    }

    async fn fetch(&self, tenant: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        let answer = Answer::of(self.ask(Method::GET, tenant, &format!("Calls/{sid}"))?).await?;
        answer.parse::<CallResource>()?.call()
    }

    async fn fetch_all(
        &self,
        tenant: &VoiceSettings,
        sids: &[CallSid],
        since: DateTime<Utc>,
    ) -> Result<Vec<Call>, CallFailure> {
        if let [sid] = sids {
            return Ok(vec![self.fetch(tenant, sid).await?]);
        }
        let mut wanted: HashSet<&CallSid> = sids.iter().collect();
        let mut found = Vec::with_capacity(sids.len());
        let size = (sids.len() * 2).clamp(50, LARGEST_PAGE).to_string();
        let first = self.ask(Method::GET, tenant, "Calls")?;
        // Twilio lists the newest first.
        let mut request = first.query(&[("From", tenant.from.expose()), ("PageSize", &size)]);
        for _ in 0..MOST_PAGES {
            let page = Answer::of(request).await?.parse::<CallList>()?;
            let mut over = false;
            for call in page.calls {
                let call = call.call()?;
                over |= call.created_at.is_some_and(|at| at < since);
                if wanted.remove(&call.sid) {
                    found.push(call);
                }
            }
            let Some(next) = page.next_page_uri.filter(|_| !over && !wanted.is_empty()) else {
                break;
            };
            // What isn't a page of this API is no page.
            let Ok(next) = self.ask_next(tenant, &next) else {
                break;
            };
            request = next;
        }
        Ok(found)
    }

    async fn list(
        &self,
        tenant: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let query = [
            ("To", to.expose()),
            ("From", tenant.from.expose()),
            ("PageSize", "100"),
        ];
        let answer = Answer::of(self.ask(Method::GET, tenant, "Calls")?.query(&query)).await?;
        answer
            .parse::<CallList>()?
            .calls
            .into_iter()
            .map(CallResource::call)
            .collect()
    }

    async fn hang_up(
        &self,
        tenant: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        let status = if even_answered {
            "completed"
        } else {
            "canceled"
        };
        let request = self.ask(Method::POST, tenant, &format!("Calls/{sid}"))?;
        let answer = Answer::of(request.form(&[("Status", status)])).await?;
        answer.parse::<CallResource>()?.call()
    }
}

/// With the credentials that calls are placed with.
pub(crate) fn authorized(request: RequestBuilder, tenant: &VoiceSettings) -> RequestBuilder {
    match &tenant.credentials.api_key {
        Some(key) => request.basic_auth(key.sid.as_str(), Some(key.secret.expose_secret())),
        None => request.basic_auth(
            tenant.account_sid.as_str(),
            Some(tenant.credentials.auth_token.expose_secret()),
        ),
    }
}

/// A success, not yet understood.
pub(crate) struct Answer {
    body: Vec<u8>,
    http_status: u16,
    request_id: Option<String>,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Result<Self, CallFailure> {
        let response = request.send().await.map_err(|error| transport(&error))?;
        let status = response.status();
        let request_id = header(&response, "twilio-request-id");
        let retry_after = header(&response, "retry-after")
            .and_then(|text| text.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER));
        let body = match response.bytes().await {
            Ok(body) => body.to_vec(),
            // The status has arrived, so a refusal is one whatever its body was going to be.
            Err(_) if status.is_client_error() => Vec::new(),
            Err(error) => {
                return Err(CallFailure {
                    request_id,
                    ..transport(&error)
                });
            }
        };
        if status.is_success() {
            return Ok(Self {
                body,
                http_status: status.as_u16(),
                request_id,
            });
        }
        let error: ErrorBody = serde_json::from_slice(&body).unwrap_or_default();
        let failure = if status.is_redirection() {
            classify(Refusal {
                http_status: StatusCode::NOT_FOUND.as_u16(),
                code: None,
                message: "",
                retry_after,
            })
        } else {
            let message = error.message.or(error.detail).unwrap_or_default();
            classify(Refusal {
                http_status: status.as_u16(),
                code: error.code,
                message: &message,
                retry_after,
            })
        };
        Err(CallFailure {
            request_id,
            http_status: Some(status.as_u16()),
            ..failure
        })
    }

    pub(crate) fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, CallFailure> {
        serde_json::from_slice(&self.body).map_err(|_| CallFailure {
            class: Class::Ambiguous,
            provider_code: None,
            http_status: Some(self.http_status),
            request_id: self.request_id.clone(),
            tenant: "Twilio answered something that can't be read; the call is looked up before another is placed".to_owned(),
            operator: format!("Twilio answered {} with a body that can't be read", self.http_status),
        })
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    let text = response.headers().get(name)?.to_str().ok()?;
    (text.len() <= 64).then(|| text.to_owned())
}

/// Nothing was sent if no connection could be made; else nobody knows.
fn transport(error: &reqwest::Error) -> CallFailure {
    let (class, operator) = if error.is_connect() {
        (Class::Transient, "no connection to Twilio could be made")
    } else if error.is_builder() {
        (
            Class::Permanent(Fault::Ours),
            "the request could not be built",
        )
    } else if error.is_timeout() {
        (Class::Ambiguous, "Twilio did not answer in time")
    } else {
        (Class::Ambiguous, "the connection to Twilio broke")
    };
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant: "Twilio could not be reached; the call is tried again".to_owned(),
        operator: operator.to_owned(),
    }
}

fn ours(operator: &str) -> CallFailure {
    CallFailure {
        class: Class::Permanent(Fault::Ours),
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant:
            "the call could not be placed because of a mistake of ours; the operator can see which"
                .to_owned(),
        operator: operator.to_owned(),
    }
}

/// A price, if these are one.
fn price(amount: Option<String>, unit: Option<String>) -> Option<Price> {
    let (amount, unit) = (amount?, unit?);
    let decimal = amount.len() <= 20 && amount.parse::<f64>().is_ok_and(f64::is_finite);
    let currency = unit.len() == 3 && unit.bytes().all(|b| b.is_ascii_alphabetic());
    (decimal && currency).then(|| Price {
        amount,
        unit: unit.to_ascii_uppercase(),
    })
}

/// Both of Twilio's error bodies: the old one (`code`, `message`) and RFC 9457's (`code`, `title`, `detail`).
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    code: Option<u32>,
    message: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CallList {
    calls: Vec<CallResource>,
    #[serde(default)]
    next_page_uri: Option<String>,
}

/// The fields of a Call that matter here. All but the SID may be null.
#[derive(Debug, Deserialize)]
struct CallResource {
    sid: String,
    status: Option<String>,
    direction: Option<String>,
    date_created: Option<String>,
    duration: Option<String>,
    answered_by: Option<String>,
    queue_time: Option<String>,
    price: Option<String>,
    price_unit: Option<String>,
}

impl CallResource {
    fn call(self) -> Result<Call, CallFailure> {
        let sid = CallSid::parse(&self.sid).map_err(|_| CallFailure {
            class: Class::Ambiguous,
            ..ours("Twilio answered without a call SID")
        })?;
        let created_at = self
            .date_created
            .and_then(|text| DateTime::parse_from_rfc2822(&text).ok());
        Ok(Call {
            sid,
            status: self
                .status
                .as_deref()
                .and_then(CallStatus::from_word)
                .unwrap_or(CallStatus::Queued),
            answered_by: self.answered_by,
            duration_s: self.duration.and_then(|text| text.parse().ok()),
            sip_code: None,
            created_at: created_at.map(|at| at.with_timezone(&Utc)),
            outbound_api: self.direction.as_deref() == Some("outbound-api"),
            queue_time: self
                .queue_time
                .and_then(|text| text.parse().ok())
                .map(Duration::from_millis),
            price: price(self.price, self.price_unit),
            trouble: None,
        })
    }
}
