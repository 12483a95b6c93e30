//! Twilio's connection overrides: the fragment of a callback URL says how patient the callback is and when it is
//! tried again, as in `https://example.com/calls#rc=3&rp=all`.

use std::time::Duration;

/// No request about a call takes longer than this, with all its retries.
const CAP_MS: u64 = 15_000;

/// Twilio's places from which it can call back.
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

/// How a callback is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overrides {
    /// How long to wait for a connection: `ct`.
    pub(crate) connect: Duration,
    /// How long to wait for an answer: `rt`.
    pub(crate) read: Duration,
    /// How long all attempts may take together: `tt`.
    pub(crate) total: Duration,
    /// How often to try again: `rc`.
    pub(crate) retries: u32,
    /// After what to try again: `rp`.
    policy: Vec<Failure>,
}

/// How one attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection came about.
    Connect,
    /// The connection broke, or no answer came in time.
    Read,
    /// An answer 4xx.
    ClientError,
    /// An answer 5xx, or any other than 2xx.
    ServerError,
}

impl Failure {
    const ALL: [Self; 4] = [
        Self::Connect,
        Self::Read,
        Self::ClientError,
        Self::ServerError,
    ];
}

impl Default for Overrides {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_millis(CAP_MS),
            total: Duration::from_millis(CAP_MS),
            retries: 1,
            policy: vec![Failure::Connect],
        }
    }
}

impl Overrides {
    /// Whether to try again after this.
    pub(crate) fn retries_after(&self, failure: Failure) -> bool {
        self.policy.contains(&failure)
    }

    /// Reads the fragment of a URL.
    ///
    /// # Errors
    /// Says what is wrong. Twilio would warn in the console (11240 to 11243) and use the defaults.
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
                "rt" => overrides.read = millis(key, value, CAP_MS)?,
                "tt" => overrides.total = millis(key, value, CAP_MS)?,
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

fn millis(key: &str, value: &str, most: u64) -> Result<Duration, String> {
    let millis = value
        .parse::<u64>()
        .ok()
        .filter(|millis| (100..=most).contains(millis));
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("the override {key} is a number from 100 to {most}"))
}

fn policy(value: &str) -> Result<Vec<Failure>, String> {
    let mut policy = Vec::new();
    for word in value.split(',') {
        match word {
            "ct" => policy.push(Failure::Connect),
            "rt" => policy.push(Failure::Read),
            "4xx" => policy.push(Failure::ClientError),
            "5xx" => policy.push(Failure::ServerError),
            "all" => policy.extend(Failure::ALL),
            _ => return Err(format!("the override rp has no policy {word}")),
        }
    }
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_fragment_only_a_failed_connection_is_tried_again_and_once() {
        let overrides = Overrides::of("https://example.com/calls").unwrap();
        assert_eq!(overrides.retries, 1);
        assert_eq!(overrides.connect, Duration::from_secs(5));
        assert_eq!(overrides.total, Duration::from_secs(15));
        assert!(overrides.retries_after(Failure::Connect));
        for failure in [Failure::Read, Failure::ClientError, Failure::ServerError] {
            assert!(!overrides.retries_after(failure), "{failure:?}");
        }
    }

    #[test]
    fn a_fragment_overrides_what_it_names() {
        let url = "https://example.com/calls?x=1#rc=3&rp=5xx,rt&ct=2000&rt=4000&tt=12000&sni=n&e=dublin,ashburn-ix";
        let overrides = Overrides::of(url).unwrap();
        assert_eq!(overrides.retries, 3);
        assert_eq!(overrides.connect, Duration::from_secs(2));
        assert_eq!(overrides.read, Duration::from_secs(4));
        assert_eq!(overrides.total, Duration::from_secs(12));
        assert!(
            overrides.retries_after(Failure::ServerError) && overrides.retries_after(Failure::Read)
        );
        assert!(
            !overrides.retries_after(Failure::ClientError)
                && !overrides.retries_after(Failure::Connect)
        );
        assert!(
            Overrides::of("https://example.com#rp=all")
                .unwrap()
                .retries_after(Failure::ClientError)
        );
    }

    #[test]
    fn an_override_that_twilio_does_not_have_is_refused() {
        for fragment in [
            "rc=6", "rc=-1", "rp=3xx", "ct=99", "ct=10001", "rt=15001", "tt=x", "x=1", "rc", "",
            "sni=yes", "e=mars",
        ] {
            assert!(
                Overrides::of(&format!("https://example.com/#{fragment}")).is_err(),
                "{fragment}"
            );
        }
    }
}
