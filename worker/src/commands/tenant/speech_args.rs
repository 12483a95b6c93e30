//! The flags of `voice-otp tenant set` about speech, answering machines and redials.

use std::collections::BTreeMap;
use std::time::Duration;

use voice_otp::settings::policy::{RedialOutcome, RedialRule, Voicemail};
use voice_otp::settings::{Draft, Setting};
use voice_otp::speech::EVERY_LOCALE;

use crate::args::TenantSet;
use crate::config::ArgumentChecker;

/// The values of the flags that are given.
pub(super) struct SpeechArgs {
    rate_percent: Option<u32>,
    digit_pause: Option<Duration>,
    readings: Option<u32>,
    /// Pairs of locale and text; an empty text removes the locale's.
    brands: Vec<(String, String)>,
    greetings: Vec<(String, String)>,
    voices: Vec<(String, String)>,
    voicemail: Option<Voicemail>,
    redials: Vec<(RedialOutcome, RedialRule)>,
}

impl SpeechArgs {
    pub(super) fn read(checker: &mut ArgumentChecker, args: &TenantSet) -> Self {
        let digit_pause = args.digit_pause.as_deref().and_then(|text| {
            let (min, max) = (Duration::from_millis(200), Duration::from_secs(2));
            checker.duration(flag(Setting::DigitPause), text, min, max)
        });
        let brand = |text: &String| {
            split_locale(text).unwrap_or_else(|| (EVERY_LOCALE.to_owned(), text.clone()))
        };
        Self {
            rate_percent: args.speech_rate,
            digit_pause,
            readings: args.readings,
            brands: args.brands.iter().map(brand).collect(),
            greetings: locale_pairs(checker, Setting::Greetings, &args.greetings),
            voices: locale_pairs(checker, Setting::Voices, &args.voices),
            voicemail: voicemail(checker, args),
            redials: args
                .redials
                .iter()
                .filter_map(|text| redial(checker, text))
                .collect(),
        }
    }

    /// Changes the settings whose flags are given.
    pub(super) fn apply(self, draft: &mut Draft) {
        let style = &mut draft.speech;
        style.rate_percent = self.rate_percent.unwrap_or(style.rate_percent);
        style.readings = self.readings.unwrap_or(style.readings);
        if let Some(pause) = self.digit_pause {
            // At most 2,000 ms.
            style.pause_ms = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        }
        set_or_remove(&mut style.brands, self.brands);
        set_or_remove(&mut style.greetings, self.greetings);
        set_or_remove(&mut style.voices, self.voices);
        draft.voicemail = self.voicemail.unwrap_or(draft.voicemail);
        for (outcome, rule) in self.redials {
            draft.redial.set(outcome, rule);
        }
    }
}

fn flag(setting: Setting) -> &'static str {
    setting.field().flag
}

fn set_or_remove(by_locale: &mut BTreeMap<String, String>, changes: Vec<(String, String)>) {
    for (locale, text) in changes {
        if text.is_empty() {
            by_locale.remove(&locale);
        } else {
            by_locale.insert(locale, text);
        }
    }
}

/// Splits `LOCALE=TEXT`. `None` if what stands before the first `=` can't be a locale.
fn split_locale(text: &str) -> Option<(String, String)> {
    let (locale, rest) = text.split_once('=')?;
    let is_tag = !locale.is_empty()
        && locale
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'*');
    is_tag.then(|| (locale.to_owned(), rest.to_owned()))
}

fn locale_pairs(
    checker: &mut ArgumentChecker,
    setting: Setting,
    texts: &[String],
) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for text in texts {
        match split_locale(text) {
            Some(pair) => pairs.push(pair),
            None => {
                checker.reject(format!(
                    "{}: LOCALE=TEXT, for example de-DE=…",
                    flag(setting)
                ));
            }
        }
    }
    pairs
}

fn voicemail(checker: &mut ArgumentChecker, args: &TenantSet) -> Option<Voicemail> {
    let text = args.voicemail.as_deref()?;
    let flag = flag(Setting::Voicemail);
    let Some(policy) = Voicemail::parse(text) else {
        checker.reject(format!(
            "{flag}: speak, hang_up, wait_for_beep or press_key"
        ));
        return None;
    };
    if policy.needs_public_url() && args.public_url.as_deref().is_none_or(str::is_empty) {
        checker.reject(format!(
            "{flag}: every policy but speak needs workers that Twilio can reach: set \
             VOICE_OTP_PUBLIC_URL as for the workers, or --public-url"
        ));
    }
    Some(policy)
}

/// Parses `busy=2/30s`, or `busy=0`.
fn redial(checker: &mut ArgumentChecker, text: &str) -> Option<(RedialOutcome, RedialRule)> {
    let parsed = parse_redial(text);
    if parsed.is_none() {
        checker.reject(format!(
            "{}: busy, no_answer, failed or voicemail, then how often and how much later: \
             busy=2/30s, or busy=0",
            flag(Setting::Redial)
        ));
    }
    parsed
}

fn parse_redial(text: &str) -> Option<(RedialOutcome, RedialRule)> {
    let (outcome, rest) = text.split_once('=')?;
    let outcome = RedialOutcome::parse(outcome)?;
    let (times, after) = match rest.split_once('/') {
        Some((times, after)) => (times.parse().ok()?, humantime::parse_duration(after).ok()?),
        None => (
            rest.parse().ok().filter(|times| *times == 0)?,
            Duration::ZERO,
        ),
    };
    let after_s = after.as_secs();
    Some((outcome, RedialRule { times, after_s }))
}
