//! The URLs at which Twilio reaches the workers.

use reqwest::Url;
use voice_otp::call::answer::CallStep;
use voice_otp::delivery::AttemptId;

/// The path at which a worker answers a probe of its public URL.
pub const PROBE_PATH: &str = "/twilio/status/probe";

/// The body with which a worker answers a probe.
pub const PROBE_ANSWER: &str = "voice-otp probe: ok\n";

/// The connection overrides of voice-otp's webhooks: Twilio retries up to three times, after any
/// failure. By default it retries once, and only if it could not connect
/// (<https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>).
const OVERRIDES: &str = "rc=3&rp=all";

/// The public URL of the workers, if they have one.
#[derive(Debug, Clone)]
pub(super) struct PublicUrls(pub(super) Option<Url>);

impl PublicUrls {
    pub(super) fn callback(&self, attempt: AttemptId) -> Option<String> {
        self.join(&format!("/twilio/status/{}", attempt.0.simple()))
    }

    pub(super) fn voice(&self, attempt: AttemptId, step: CallStep) -> Option<String> {
        let attempt = attempt.0.simple();
        self.join(&format!("/twilio/voice/{attempt}{}", step.to_query()))
    }

    pub(super) fn probe(&self) -> Option<String> {
        self.join(PROBE_PATH)
    }

    fn join(&self, path: &str) -> Option<String> {
        let base = self.0.as_ref()?;
        Some(format!("{}{path}", base.as_str().trim_end_matches('/')))
    }
}

/// Adds the connection overrides to a URL. Twilio signs the URL without them.
pub(super) fn with_overrides(url: &str) -> String {
    format!("{url}#{OVERRIDES}")
}
