//! Settings, checked. Every problem is reported; the program then exits with 2.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use voice_otp::Tuning;
use voice_otp_publisher::connection;
use voice_otp_publisher::topology::LaneCount;
use voice_otp_server::client_address::TrustedProxies;
use voice_otp_store::{DatabaseUrl, Keyring};

use crate::args::{Broker, Cleartext, Database, EncryptionKeys, TwilioUrls, Worker};

/// Arguments that can't be used: one line for each problem.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct UsageError(pub(crate) Vec<String>);

/// Checks arguments and collects their problems. A method that checks a value returns `None` when
/// it has recorded a problem.
#[derive(Default)]
pub(crate) struct ArgumentChecker {
    problems: Vec<String>,
}

/// A worker's settings.
#[derive(Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) amqp_url: SecretString,
    pub(crate) database_url: SecretString,
    /// Decrypts codes, numbers and tenants' secrets, and encrypts new ones with the first key.
    pub(crate) keys: Keyring,
    /// Replaces Twilio's own hosts.
    pub(crate) twilio_url: Option<Url>,
    /// The base of callback URLs. Without it calls are polled.
    pub(crate) public_url: Option<Url>,
    /// The address to listen on; empty if the caller brings its own listener.
    pub(crate) listen: String,
    /// The time that a graceful shutdown may take.
    pub(crate) grace: Duration,
    /// Unacknowledged messages of the shared queue; each lane has an eighth of it.
    pub(crate) prefetch: u16,
    /// The number of queues that the lanes share.
    pub(crate) lanes: LaneCount,
    /// The maximum number of database connections.
    pub(crate) database_pool: usize,
    /// How long finished deliveries are kept for deduplication.
    pub(crate) retention: Duration,
    pub(crate) tuning: Tuning,
}

impl ArgumentChecker {
    /// Records a problem. The text names the flag or variable, and never shows a secret.
    pub(crate) fn reject(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// The checked values, unless a problem was recorded. `checked` returns `None` if one of them
    /// is missing, so it is a row of `?`.
    pub(crate) fn finish<T>(self, checked: impl FnOnce() -> Option<T>) -> Result<T, UsageError> {
        match checked() {
            Some(checked) if self.problems.is_empty() => Ok(checked),
            _ => Err(UsageError(self.problems)),
        }
    }

    /// The value of a flag as `parse` reads it.
    pub(crate) fn parse<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text)
            .map_err(|error| self.reject(format!("{name}: {error}")))
            .ok()
    }

    pub(crate) fn broker(
        &mut self,
        broker: &Broker,
        cleartext: &Cleartext,
    ) -> Option<SecretString> {
        let Some(url) = &broker.amqp_url else {
            self.reject(
                "VOICE_OTP_AMQP_URL (--amqp-url) is missing: amqp://user:password@host:port/vhost",
            );
            return None;
        };
        let mut url = SecretString::from(url.as_str());
        if cleartext.allow_cleartext {
            url = connection::allow_cleartext(&url);
        }
        connection::check_url(&url)
            .map_err(|error| {
                let reason = std::error::Error::source(&error);
                let reason = reason
                    .map(|reason| format!(": {reason}"))
                    .unwrap_or_default();
                self.reject(format!("VOICE_OTP_AMQP_URL: {error}{reason}"));
            })
            .ok()?;
        Some(url)
    }

    pub(crate) fn database(&mut self, database: &Database) -> Option<SecretString> {
        let Some(url) = &database.database_url else {
            self.reject(
                "VOICE_OTP_DATABASE_URL (--database-url) is missing: \
                 postgres://user:password@host:port/database",
            );
            return None;
        };
        let mut url = SecretString::from(url.as_str());
        if database.cleartext.allow_cleartext {
            url = voice_otp_store::url::allow_cleartext(&url);
        }
        DatabaseUrl::parse(&url)
            .map_err(|error| {
                let error = anyhow::Error::from(error);
                self.reject(format!("VOICE_OTP_DATABASE_URL: {error:#}"));
            })
            .ok()?;
        Some(url)
    }

    pub(crate) fn keys(&mut self, keys: &EncryptionKeys) -> Option<Keyring> {
        let (name, text) = match (&keys.keys, &keys.keys_file) {
            (Some(_), Some(_)) => {
                self.reject("VOICE_OTP_KEYS and VOICE_OTP_KEYS_FILE: set one of them");
                return None;
            }
            (None, Some(file)) => match std::fs::read_to_string(file) {
                Ok(text) => ("VOICE_OTP_KEYS_FILE", SecretString::from(text.trim())),
                Err(error) => {
                    self.reject(format!(
                        "VOICE_OTP_KEYS_FILE: failed to read {}: {error}",
                        file.display()
                    ));
                    return None;
                }
            },
            (keys, None) => (
                "VOICE_OTP_KEYS",
                SecretString::from(keys.as_deref().unwrap_or_default()),
            ),
        };
        Keyring::parse(&text)
            .map_err(|error| self.reject(format!("{name}: {error}")))
            .ok()
    }

    pub(crate) fn duration(
        &mut self,
        name: &str,
        text: &str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let duration = humantime::parse_duration(text).ok();
        let duration = duration.filter(|duration| (min..=max).contains(duration));
        if duration.is_none() {
            self.reject(format!(
                "{name}: a duration with its unit, from {} to {}",
                humantime::format_duration(min),
                humantime::format_duration(max)
            ));
        }
        duration
    }

    pub(crate) fn number(&mut self, name: &str, text: &str, min: u64, max: u64) -> Option<u64> {
        let number = text
            .parse()
            .ok()
            .filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.reject(format!("{name}: a number from {min} to {max}"));
        }
        number
    }

    /// The URL of Twilio's API, and the public URL of the workers.
    pub(crate) fn twilio_urls(&mut self, urls: &TwilioUrls) -> (Option<Url>, Option<Url>) {
        let twilio_url = self.url("VOICE_OTP_TWILIO_URL", urls.twilio_url.as_deref());
        (twilio_url, self.public_url(urls))
    }

    /// The proxies in front of the console.
    pub(crate) fn trusted_proxies(&mut self, text: &str) -> Option<TrustedProxies> {
        let proxies = TrustedProxies::parse(text);
        proxies
            .map_err(|error| self.reject(format!("VOICE_OTP_CONSOLE_TRUSTED_PROXIES: {error}")))
            .ok()
    }

    /// An http or https URL. An empty text counts as unset: Compose can't unset a variable.
    pub(crate) fn url(&mut self, name: &str, text: Option<&str>) -> Option<Url> {
        let text = text.filter(|text| !text.is_empty())?;
        let usable = |url: &Url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty()
        };
        let url = Url::parse(text).ok().filter(usable);
        if url.is_none() {
            self.reject(format!("{name}: an http or https URL without a user"));
        }
        url
    }

    fn public_url(&mut self, urls: &TwilioUrls) -> Option<Url> {
        let url = self.url("VOICE_OTP_PUBLIC_URL", urls.public_url.as_deref())?;
        if url.scheme() != "https" && !urls.allow_http {
            self.reject(
                "VOICE_OTP_PUBLIC_URL: must be https, unless VOICE_OTP_ALLOW_HTTP is true: \
                 callbacks contain the numbers that are called",
            );
        }
        if url.host_str().is_some_and(|host| host.contains('_')) {
            self.reject("VOICE_OTP_PUBLIC_URL: Twilio rejects a host name with an underscore");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.reject("VOICE_OTP_PUBLIC_URL: without a query or fragment");
        }
        Some(url)
    }
}

/// Checks a worker's settings.
pub(crate) fn worker(worker: &Worker) -> Result<WorkerSettings, UsageError> {
    let mut checker = ArgumentChecker::default();
    let second = Duration::from_secs(1);
    let day = Duration::from_hours(24);
    let amqp_url = checker.broker(&worker.broker, &worker.database.cleartext);
    let database_url = checker.database(&worker.database);
    let keys = checker.keys(&worker.keys);
    let (twilio_url, public_url) = checker.twilio_urls(&worker.twilio);
    let mut duration = |name, text: &str, min, max| checker.duration(name, text, min, max);
    let lead = duration("VOICE_OTP_LEAD", &worker.lead, second, second * 600);
    let grace = duration("VOICE_OTP_GRACE", &worker.grace, second, second * 600);
    let post_timeout = duration(
        "VOICE_OTP_POST_TIMEOUT",
        &worker.post_timeout,
        second,
        second * 60,
    );
    let settle_after = duration(
        "VOICE_OTP_SETTLE_AFTER",
        &worker.settle_after,
        second,
        second * 300,
    );
    let retention = duration("VOICE_OTP_RETENTION", &worker.retention, day, day * 35);
    let concurrency = checker.number("VOICE_OTP_CONCURRENCY", &worker.concurrency, 1, 10_000);
    let prefetch = checker.number("VOICE_OTP_PREFETCH", &worker.prefetch, 1, 10_000);
    let lanes = worker.lanes.parse().ok().and_then(LaneCount::new);
    if lanes.is_none() {
        checker.reject("VOICE_OTP_LANES: a power of two from 1 to 128");
    }
    let pool = checker.number("VOICE_OTP_DATABASE_POOL", &worker.database_pool, 3, 100);
    if let (Some(grace), Some(post_timeout)) = (grace, post_timeout)
        && grace <= post_timeout
    {
        checker.reject(
            "VOICE_OTP_GRACE: must be longer than VOICE_OTP_POST_TIMEOUT, or a call in flight \
             can't be finished",
        );
    }
    checker.finish(|| {
        Some(WorkerSettings {
            amqp_url: amqp_url?,
            database_url: database_url?,
            keys: keys?,
            twilio_url,
            public_url,
            listen: worker.listen.clone(),
            grace: grace?,
            prefetch: u16::try_from(prefetch?).ok()?,
            lanes: lanes?,
            database_pool: usize::try_from(pool?).ok()?,
            retention: retention?,
            tuning: Tuning {
                lead: lead?,
                post_timeout: post_timeout?,
                absence_after: settle_after?,
                attempt_permits: usize::try_from(concurrency?).ok()?,
                ..Tuning::default()
            },
        })
    })
}
