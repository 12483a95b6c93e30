//! Twilio's connection overrides: the fragment of a webhook's URL sets timeouts and retries, as in
//! `https://example.com/calls#rc=3&rp=all`
//! (<https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides>).

use std::time::Duration;

/// Twilio's limit for a voice webhook with all its retries, in milliseconds.
const MAX_TOTAL_MS: u64 = 15_000;

/// The locations that Twilio can send requests from.
const EDGES: [&str; 8] = [
    "ashburn",
    "dublin",
    "frankfurt",
    "sao-paulo",
    "singapore",
    "sydney",
    "tokyo",
    "umatilla",
];

/// The timeouts and retries of a webhook request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionOverrides {
    /// How long to wait for a connection: `ct`.
    pub(crate) connect: Duration,
    /// How long to wait for an answer: `rt`.
    pub(crate) read: Duration,
    /// How long all attempts may take together: `tt`.
    pub(crate) total: Duration,
    /// How many retries may follow the first attempt: `rc`.
    pub(crate) retries: u32,
    /// The failures that are retried: `rp`.
    policy: Vec<WebhookFailure>,
}

/// How one attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WebhookFailure {
    /// No connection was made.
    Connect,
    /// The connection broke, or no answer came in time.
    Read,
    /// The status was 4xx.
    ClientError,
    /// The status was 5xx, or any other except 2xx and 4xx.
    ServerError,
}

impl WebhookFailure {
    const ALL: [Self; 4] = [
        Self::Connect,
        Self::Read,
        Self::ClientError,
        Self::ServerError,
    ];
}

impl Default for ConnectionOverrides {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_millis(MAX_TOTAL_MS),
            total: Duration::from_millis(MAX_TOTAL_MS),
            retries: 1,
            policy: vec![WebhookFailure::Connect],
        }
    }
}

impl ConnectionOverrides {
    /// Whether this failure is retried.
    pub(crate) fn retries_after(&self, failure: WebhookFailure) -> bool {
        self.policy.contains(&failure)
    }

    /// Reads the fragment of a URL; without one, the defaults apply.
    ///
    /// # Errors
    /// What is wrong. Twilio would log a warning (11240 to 11243) and use the defaults.
    pub(crate) fn of(url: &str) -> Result<Self, String> {
        let mut overrides = Self::default();
        let Some((_, fragment)) = url.split_once('#') else {
            return Ok(overrides);
        };
        for pair in fragment.split('&') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("the override {pair} has no value"))?;
            match key {
                "ct" => overrides.connect = millis(key, value, 10_000)?,
                "rt" => overrides.read = millis(key, value, MAX_TOTAL_MS)?,
                "tt" => overrides.total = millis(key, value, MAX_TOTAL_MS)?,
                "rc" => {
                    let retries = value.parse::<u32>().ok().filter(|retries| *retries <= 5);
                    overrides.retries = retries.ok_or("the override rc is a number from 0 to 5")?;
                }
                "rp" => overrides.policy = policy(value)?,
                "sni" if matches!(value, "y" | "n") => {}
                "e" if value
                    .split(',')
                    .all(|edge| EDGES.contains(&edge.trim_end_matches("-ix"))) => {}
                _ => return Err(format!("the override {pair} is not known")),
            }
        }
        Ok(overrides)
    }
}

fn millis(key: &str, value: &str, max: u64) -> Result<Duration, String> {
    let millis = value
        .parse::<u64>()
        .ok()
        .filter(|millis| (100..=max).contains(millis));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("the override {key} is a number from 100 to {max}"))
}

fn policy(value: &str) -> Result<Vec<WebhookFailure>, String> {
    let mut policy = Vec::new();
    for word in value.split(',') {
        match word {
            "ct" => policy.push(WebhookFailure::Connect),
            "rt" => policy.push(WebhookFailure::Read),
            "4xx" => policy.push(WebhookFailure::ClientError),
            "5xx" => policy.push(WebhookFailure::ServerError),
            "all" => policy.extend(WebhookFailure::ALL),
            _ => return Err(format!("the override rp has no policy {word}")),
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_fragment_only_a_failed_connection_is_retried_and_once() {
        let overrides = ConnectionOverrides::of("https://example.com/calls").unwrap();
        assert_eq!(overrides.retries, 1);
        assert_eq!(overrides.connect, Duration::from_secs(5));
        assert_eq!(overrides.total, Duration::from_secs(15));
        assert!(overrides.retries_after(WebhookFailure::Connect));
        for failure in [
            WebhookFailure::Read,
            WebhookFailure::ClientError,
            WebhookFailure::ServerError,
        ] {
            assert!(!overrides.retries_after(failure), "{failure:?}");
        }
    }

    #[test]
    fn a_fragment_overrides_what_it_names() {
        let url = "https://example.com/calls?x=1\
                   #rc=3&rp=5xx,rt&ct=2000&rt=4000&tt=12000&sni=n&e=dublin,ashburn-ix";
        let overrides = ConnectionOverrides::of(url).unwrap();
        assert_eq!(overrides.retries, 3);
        assert_eq!(overrides.connect, Duration::from_secs(2));
        assert_eq!(overrides.read, Duration::from_secs(4));
        assert_eq!(overrides.total, Duration::from_secs(12));
        assert!(
            overrides.retries_after(WebhookFailure::ServerError)
                && overrides.retries_after(WebhookFailure::Read)
        );
        assert!(
            !overrides.retries_after(WebhookFailure::ClientError)
                && !overrides.retries_after(WebhookFailure::Connect)
        );
        assert!(
            ConnectionOverrides::of("https://example.com#rp=all")
                .unwrap()
                .retries_after(WebhookFailure::ClientError)
        );
    }

    #[test]
    fn an_override_that_twilio_does_not_have_is_refused() {
        for fragment in [
            "rc=6", "rc=-1", "rp=3xx", "ct=99", "ct=10001", "rt=15001", "tt=x", "x=1", "rc", "",
            "sni=yes", "e=mars",
        ] {
            assert!(
                ConnectionOverrides::of(&format!("https://example.com/#{fragment}")).is_err(),
                "{fragment}"
            );
        }
    }
}
