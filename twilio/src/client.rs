//! The client of Twilio's REST API: it places, reads, lists and ends calls.
//!
//! The list of calls has the number called in its query, so no error here carries a URL.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, Url};
use voice_otp::account::CallSid;
use voice_otp::call::Call;
use voice_otp::call::answer::CallStep;
use voice_otp::call::failure::CallFailure;
use voice_otp::delivery::AttemptId;
use voice_otp::ports::{CallRequest, Instructions, Telephony};
use voice_otp::settings::VoiceSettings;
use voice_otp::settings::policy::Voicemail;
use voice_otp_schemas::PhoneNumber;

pub use self::urls::{PROBE_ANSWER, PROBE_PATH};

use self::api::Api;
use self::call_resource::{CallList, CallResource};
use self::response::{ApiResponse, internal_failure};
use self::urls::{PublicUrls, with_overrides};
use crate::twiml;

pub(crate) mod api;
mod call_resource;
pub(crate) mod response;
mod urls;

/// How many calls a page of Twilio's list has at most
/// (<https://www.twilio.com/docs/voice/api/call-resource#read-multiple-call-resources>).
const MAX_PAGE_SIZE: usize = 1_000;
/// How many pages [`Telephony::fetch_all`] reads at most. The engine reads the calls that aren't on
/// them one by one.
const MAX_PAGES: usize = 5;

/// How to reach Twilio, and how Twilio reaches the workers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The simulator or a proxy, in place of `https://api.twilio.com` and its regional hosts.
    pub base_url: Option<Url>,
    /// Where Twilio reaches the workers, without a path. `None`: there are no callbacks.
    pub public_url: Option<Url>,
    /// How long connecting may take: half of `timeout` at most, so that a request that had no
    /// connection is known not to have been sent.
    pub connect_timeout: Duration,
    /// How long a request may take, connecting included.
    pub timeout: Duration,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to make an HTTP client")]
pub struct Error(#[source] reqwest::Error);

/// The client of Twilio's REST API. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) api: Api,
    public_urls: PublicUrls,
}

impl Client {
    /// Makes a client. The process must have a rustls crypto provider installed.
    ///
    /// # Errors
    /// [`Error`] if the system's certificates or resolver can't be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("voice-otp/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout.min(settings.timeout / 2))
            .timeout(settings.timeout)
            .pool_max_idle_per_host(512)
            .pool_idle_timeout(Duration::from_mins(1))
            .tcp_nodelay(true)
            // A POST that is redirected and sent again could place two calls.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error)?;
        Ok(Self {
            api: Api {
                http,
                base_url: settings.base_url,
            },
            public_urls: PublicUrls(settings.public_url),
        })
    }

    /// The URL of an attempt's status callbacks, as Twilio signs it: without connection overrides.
    /// `None` if there is no public URL.
    pub fn callback_url(&self, attempt: AttemptId) -> Option<String> {
        self.public_urls.callback(attempt)
    }

    /// The URL at which a call requests its instructions, as Twilio signs it. `None` if there is no
    /// public URL.
    pub fn voice_url(&self, attempt: AttemptId, step: CallStep) -> Option<String> {
        self.public_urls.voice(attempt, step)
    }

    /// The URL at which a call requests its instructions, as Twilio is given it: with connection
    /// overrides. `None` if there is no public URL.
    pub fn voice_action(&self, attempt: AttemptId, step: CallStep) -> Option<String> {
        let url = self.voice_url(attempt, step)?;
        Some(with_overrides(&url))
    }

    /// The URL that probes whether the public URL reaches a worker, as it is signed. `None` if
    /// there is no public URL.
    pub fn probe_url(&self) -> Option<String> {
        self.public_urls.probe()
    }

    /// The form of a create request
    /// (<https://www.twilio.com/docs/voice/api/call-resource#create-a-call-resource>).
    fn create_form(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Vec<(&'static str, String)>, CallFailure> {
        let ring_timeout = request.ring_timeout.as_secs().clamp(5, 600);
        let mut form = vec![
            ("To", request.to.expose().to_owned()),
            ("From", settings.from.expose().to_owned()),
            ("Timeout", ring_timeout.to_string()),
            ("TimeLimit", request.limit.as_secs().max(1).to_string()),
        ];
        match request.instructions {
            Instructions::Inline(script) => {
                let twiml =
                    twiml::render(script).map_err(|_| internal_failure("the TwiML is too long"))?;
                form.push(("Twiml", twiml));
            }
            Instructions::OnRequest(policy) => {
                let url = self.voice_action(request.attempt_id, CallStep::Answered(policy));
                let url = url.ok_or_else(|| {
                    internal_failure("no public URL for the call to request its instructions at")
                })?;
                form.push(("Url", url));
                form.push(("Method", "POST".to_owned()));
                match policy {
                    Voicemail::Speak | Voicemail::PressKey => {}
                    Voicemail::HangUp => form.push(("MachineDetection", "Enable".to_owned())),
                    Voicemail::WaitForBeep => {
                        form.push(("MachineDetection", "DetectMessageEnd".to_owned()));
                    }
                }
            }
        }
        if let Some(extension) = request.extension {
            form.push(("SendDigits", extension.to_owned()));
        }
        if let Some(url) = self.callback_url(request.attempt_id) {
            form.push(("StatusCallback", with_overrides(&url)));
            form.push(("StatusCallbackMethod", "POST".to_owned()));
            for event in ["initiated", "ringing", "answered", "completed"] {
                form.push(("StatusCallbackEvent", event.to_owned()));
            }
        }
        Ok(form)
    }
}

impl Telephony for Client {
    fn has_callbacks(&self) -> bool {
        self.public_urls.0.is_some()
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Call, CallFailure> {
        let form = self.create_form(settings, request)?;
        let request = self.api.account_request(Method::POST, settings, "Calls")?;
        let response = ApiResponse::of(request.form(&form)).await?;
        response.parse::<CallResource>()?.into_call()
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        let resource = format!("Calls/{sid}");
        let request = self.api.account_request(Method::GET, settings, &resource)?;
        let response = ApiResponse::of(request).await?;
        response.parse::<CallResource>()?.into_call()
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: DateTime<Utc>,
    ) -> Result<Vec<Call>, CallFailure> {
        if let [sid] = sids {
            return Ok(vec![self.fetch(settings, sid).await?]);
        }
        let mut wanted: HashSet<&CallSid> = sids.iter().collect();
        let mut found = Vec::with_capacity(sids.len());
        let size = (sids.len() * 2).clamp(50, MAX_PAGE_SIZE).to_string();
        let first = self.api.account_request(Method::GET, settings, "Calls")?;
        // Twilio lists the newest calls first.
        let mut request = first.query(&[("From", settings.from.expose()), ("PageSize", &size)]);
        for _ in 0..MAX_PAGES {
            let page = ApiResponse::of(request).await?.parse::<CallList>()?;
            let mut reached_older = false;
            for call in page.calls {
                let call = call.into_call()?;
                reached_older |= call.created_at.is_some_and(|at| at < since);
                if wanted.remove(&call.sid) {
                    found.push(call);
                }
            }
            let finished = reached_older || wanted.is_empty();
            let Some(next) = page.next_page_uri.filter(|_| !finished) else {
                break;
            };
            // A URI outside this API ends the list.
            let Ok(next) = self.api.next_page_request(settings, &next) else {
                break;
            };
            request = next;
        }
        Ok(found)
    }

    async fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let query = [
            ("To", to.expose()),
            ("From", settings.from.expose()),
            ("PageSize", "100"),
        ];
        let request = self.api.account_request(Method::GET, settings, "Calls")?;
        let response = ApiResponse::of(request.query(&query)).await?;
        let calls = response.parse::<CallList>()?.calls;
        calls.into_iter().map(CallResource::into_call).collect()
    }

    async fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        // `canceled` fails once the call is answered
        // (<https://www.twilio.com/docs/voice/api/call-resource#update-a-call-resource>).
        let status = if even_answered {
            "completed"
        } else {
            "canceled"
        };
        let resource = format!("Calls/{sid}");
        let request = self
            .api
            .account_request(Method::POST, settings, &resource)?;
        let response = ApiResponse::of(request.form(&[("Status", status)])).await?;
        response.parse::<CallResource>()?.into_call()
    }
}
