//! Settings, checked: every problem is told, then the program exits with 2.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use voice_otp::Tuning;
use voice_otp_publisher::link;
use voice_otp_store::Keyring;

use crate::cli::{Broker, Database, Reach, Sealing, Worker};

/// Settings that can't be used: a line a problem.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct Wrong(pub(crate) Vec<String>);

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Checks {
    problems: Vec<String>,
}

/// A worker's settings.
#[derive(Clone)]
pub(crate) struct WorkerSettings {
    pub(crate) amqp_url: SecretString,
    pub(crate) database_url: SecretString,
    pub(crate) keys: Keyring,
    pub(crate) twilio_url: Option<Url>,
    pub(crate) public_url: Option<Url>,
    pub(crate) listen: String,
    pub(crate) grace: Duration,
    pub(crate) prefetch: u16,
    pub(crate) database_pool: usize,
    /// How long what is over is known.
    pub(crate) retention: Duration,
    pub(crate) tuning: Tuning,
}

impl Checks {
    pub(crate) fn wrong(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// What was checked, if nothing is wrong.
    pub(crate) fn done<T>(self, checked: Option<T>) -> Result<T, Wrong> {
        match checked {
            Some(checked) if self.problems.is_empty() => Ok(checked),
            _ => Err(Wrong(self.problems)),
        }
    }

    pub(crate) fn broker(&mut self, broker: &Broker) -> Option<SecretString> {
        let Some(url) = &broker.amqp_url else {
            self.wrong(
                "VOICE_OTP_AMQP_URL (--amqp-url) is missing: amqp://user:password@host:port/vhost",
            );
            return None;
        };
        let url = SecretString::from(url.as_str());
        link::check(&url)
            .map_err(|error| self.wrong(format!("VOICE_OTP_AMQP_URL: {error}")))
            .ok()?;
        Some(url)
    }

    pub(crate) fn database(&mut self, database: &Database) -> Option<SecretString> {
        let Some(url) = &database.database_url else {
            self.wrong("VOICE_OTP_DATABASE_URL (--database-url) is missing: postgres://user:password@host:port/database");
            return None;
        };
        let url = SecretString::from(url.as_str());
        voice_otp_store::connect(&url, 1)
            .map_err(|error| self.wrong(format!("VOICE_OTP_DATABASE_URL: {error}")))
            .ok()?;
        Some(url)
    }

    pub(crate) fn keys(&mut self, sealing: &Sealing) -> Option<Keyring> {
        let (name, text) = match (&sealing.keys, &sealing.keys_file) {
            (Some(_), Some(_)) => {
                self.wrong("VOICE_OTP_KEYS and VOICE_OTP_KEYS_FILE: one of the two");
                return None;
            }
            (None, Some(file)) => match std::fs::read_to_string(file) {
                Ok(text) => ("VOICE_OTP_KEYS_FILE", SecretString::from(text.trim())),
                Err(error) => {
                    self.wrong(format!(
                        "VOICE_OTP_KEYS_FILE: can't read {}: {error}",
                        file.display()
                    ));
                    return None;
                }
            },
            (keys, None) => (
                "VOICE_OTP_KEYS",
                SecretString::from(keys.clone().unwrap_or_default()),
            ),
        };
        Keyring::parse(&text)
            .map_err(|error| self.wrong(format!("{name}: {error}")))
            .ok()
    }

    pub(crate) fn duration(
        &mut self,
        name: &str,
        text: &str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let bounds = || {
            format!(
                "{name}: a duration from {} to {}, such as 30s",
                humantime::format_duration(least),
                humantime::format_duration(most)
            )
        };
        match humantime::parse_duration(text) {
            Ok(duration) if (least..=most).contains(&duration) => Some(duration),
            Ok(_) | Err(_) => {
                self.wrong(bounds());
                None
            }
        }
    }

    pub(crate) fn number(&mut self, name: &str, text: &str, least: u64, most: u64) -> Option<u64> {
        let number = text
            .parse()
            .ok()
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(format!("{name}: a number from {least} to {most}"));
        }
        number
    }

    /// Twilio's URL, and the workers'.
    pub(crate) fn reach(&mut self, reach: &Reach) -> (Option<Url>, Option<Url>) {
        (
            self.url("VOICE_OTP_TWILIO_URL", reach.twilio_url.as_ref()),
            self.public_url(reach),
        )
    }

    pub(crate) fn url(&mut self, name: &str, text: Option<&String>) -> Option<Url> {
        // Set to nothing is not set: Compose can't unset a variable.
        let text = text.filter(|text| !text.is_empty())?;
        match Url::parse(text) {
            Ok(url)
                if matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty() =>
            {
                Some(url)
            }
            Ok(_) | Err(_) => {
                self.wrong(format!("{name}: an http or https URL without a user"));
                None
            }
        }
    }

    fn public_url(&mut self, reach: &Reach) -> Option<Url> {
        let url = self.url("VOICE_OTP_PUBLIC_URL", reach.public_url.as_ref())?;
        let allow_http = match reach.allow_http.as_str() {
            "true" => true,
            "false" => false,
            _ => {
                self.wrong("VOICE_OTP_ALLOW_HTTP: true or false");
                true
            }
        };
        if url.scheme() != "https" && !allow_http {
            self.wrong(
                "VOICE_OTP_PUBLIC_URL: must be https, unless VOICE_OTP_ALLOW_HTTP is true: callbacks tell who is being called",
            );
        }
        if url.host_str().is_some_and(|host| host.contains('_')) {
            self.wrong("VOICE_OTP_PUBLIC_URL: Twilio refuses a host name with an underscore");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.wrong("VOICE_OTP_PUBLIC_URL: without a query or fragment");
        }
        Some(url)
    }
}

/// Checks a worker's settings.
pub(crate) fn worker(worker: &Worker) -> Result<WorkerSettings, Wrong> {
    let mut checks = Checks::default();
    let seconds = Duration::from_secs;
    let amqp_url = checks.broker(&worker.broker);
    let database_url = checks.database(&worker.database);
    let keys = checks.keys(&worker.sealing);
    let (twilio_url, public_url) = checks.reach(&worker.reach);
    let lead = checks.duration("VOICE_OTP_LEAD", &worker.lead, seconds(1), seconds(600));
    let grace = checks.duration("VOICE_OTP_GRACE", &worker.grace, seconds(1), seconds(600));
    let post_timeout = checks.duration(
        "VOICE_OTP_POST_TIMEOUT",
        &worker.post_timeout,
        seconds(1),
        seconds(60),
    );
    let settle_after = checks.duration(
        "VOICE_OTP_SETTLE_AFTER",
        &worker.settle_after,
        seconds(1),
        seconds(300),
    );
    let retention = checks.duration(
        "VOICE_OTP_RETENTION",
        &worker.retention,
        seconds(24 * 3600),
        seconds(35 * 24 * 3600),
    );
    let concurrency = checks.number("VOICE_OTP_CONCURRENCY", &worker.concurrency, 1, 10_000);
    let prefetch = checks.number("VOICE_OTP_PREFETCH", &worker.prefetch, 1, 10_000);
    let pool = checks.number("VOICE_OTP_DATABASE_POOL", &worker.database_pool, 3, 100);
    if let (Some(grace), Some(post_timeout)) = (grace, post_timeout)
        && grace <= post_timeout
    {
        checks.wrong("VOICE_OTP_GRACE: must be longer than VOICE_OTP_POST_TIMEOUT, or a call in flight can't be finished");
    }
    let settings = (|| {
        let tuning = Tuning {
            lead: lead?,
            post_timeout: post_timeout?,
            settle_absent: settle_after?,
            placing_permits: usize::try_from(concurrency?).ok()?,
            ..Tuning::default()
        };
        Some(WorkerSettings {
            amqp_url: amqp_url?,
            database_url: database_url?,
            keys: keys?,
            twilio_url,
            public_url,
            listen: worker.listen.clone(),
            grace: grace?,
            prefetch: u16::try_from(prefetch?).ok()?,
            database_pool: usize::try_from(pool?).ok()?,
            retention: retention?,
            tuning,
        })
    })();
    checks.done(settings)
}
