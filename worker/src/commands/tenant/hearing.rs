//! The settings of `voice-otp tenant set` about how codes are read, about answering machines and about calls placed again.

use std::collections::BTreeMap;
use std::time::Duration;

use voice_otp::policy::{Again, Outcome, Voicemail};
use voice_otp::settings::Draft;
use voice_otp::speech::EVERY_LOCALE;

use crate::cli::TenantSet;
use crate::config::Checks;

/// What was asked for.
pub(super) struct Hearing {
    rate_percent: Option<u32>,
    pause: Option<Duration>,
    readings: Option<u32>,
    /// By locale; an empty text takes away.
    brands: Vec<(String, String)>,
    greetings: Vec<(String, String)>,
    voices: Vec<(String, String)>,
    voicemail: Option<Voicemail>,
    redials: Vec<(Outcome, Again)>,
}

/// Reads the flags.
pub(super) fn read(checks: &mut Checks, args: &TenantSet) -> Hearing {
    let (least, most) = (Duration::from_millis(200), Duration::from_secs(2));
    let voicemail = args.voicemail.as_deref().and_then(|word| {
        let policy = Voicemail::from_word(word);
        if policy.is_none() {
            checks.wrong("--voicemail: speak, hang_up, wait_for_beep or press_key");
        }
        policy
    });
    if voicemail.is_some_and(Voicemail::needs_public_url)
        && args.public_url.as_deref().is_none_or(str::is_empty)
    {
        checks.wrong(
            "--voicemail: all but speak need workers that Twilio can reach: set VOICE_OTP_PUBLIC_URL as for the workers, or \
             --public-url",
        );
    }
    Hearing {
        rate_percent: args.speech_rate,
        pause: args
            .digit_pause
            .as_deref()
            .and_then(|text| checks.duration("--digit-pause", text, least, most)),
        readings: args.readings,
        brands: args
            .brands
            .iter()
            .map(|text| split(text).unwrap_or_else(|| (EVERY_LOCALE.to_owned(), text.clone())))
            .collect(),
        greetings: pairs(checks, "--greeting", &args.greetings),
        voices: pairs(checks, "--voice", &args.voices),
        voicemail,
        redials: args
            .redials
            .iter()
            .filter_map(|text| redial(checks, text))
            .collect(),
    }
}

impl Hearing {
    /// Changes a draft.
    pub(super) fn apply(self, draft: &mut Draft) {
        let manner = &mut draft.manner;
        manner.rate_percent = self.rate_percent.unwrap_or(manner.rate_percent);
        manner.readings = self.readings.unwrap_or(manner.readings);
        if let Some(pause) = self.pause {
            manner.pause_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        }
        change(&mut manner.brands, self.brands);
        change(&mut manner.greetings, self.greetings);
        change(&mut manner.voices, self.voices);
        draft.voicemail = self.voicemail.unwrap_or(draft.voicemail);
        for (outcome, again) in self.redials {
            draft.redial.set(outcome, again);
        }
    }
}

fn change(map: &mut BTreeMap<String, String>, changes: Vec<(String, String)>) {
    for (locale, text) in changes {
        if text.is_empty() {
            map.remove(&locale);
        } else {
            map.insert(locale, text);
        }
    }
}

/// `LOCALE=TEXT`; none where what stands before the first = is no locale.
fn split(text: &str) -> Option<(String, String)> {
    let (locale, rest) = text.split_once('=')?;
    let tag = !locale.is_empty()
        && locale
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'*');
    tag.then(|| (locale.to_owned(), rest.to_owned()))
}

fn pairs(checks: &mut Checks, flag: &str, texts: &[String]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for text in texts {
        match split(text) {
            Some(pair) => pairs.push(pair),
            None => checks.wrong(format!("{flag}: LOCALE=TEXT, for example de-DE=…")),
        }
    }
    pairs
}

/// `busy=2/30s`, or `busy=0`.
fn redial(checks: &mut Checks, text: &str) -> Option<(Outcome, Again)> {
    let parsed = || {
        let (outcome, rest) = text.split_once('=')?;
        let outcome = Outcome::from_word(outcome)?;
        let (times, after) = match rest.split_once('/') {
            Some((times, after)) => (times.parse().ok()?, humantime::parse_duration(after).ok()?),
            None => (
                rest.parse().ok().filter(|times| *times == 0)?,
                Duration::ZERO,
            ),
        };
        Some((
            outcome,
            Again {
                times,
                after_s: after.as_secs(),
            },
        ))
    };
    let parsed = parsed();
    if parsed.is_none() {
        checks.wrong("--redial: busy, no_answer, failed or voicemail, then how often and how much later: busy=2/30s, or busy=0");
    }
    parsed
}
