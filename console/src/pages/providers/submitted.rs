//! Reads the settings form.

use std::collections::BTreeMap;

use secrecy::SecretString;
use voice_otp::settings::Setting;
use voice_otp::settings::policy::RedialOutcome;
use voice_otp::speech::EVERY_LOCALE;

use crate::pages::request::Fields;
use crate::problem::FieldError;
use crate::services::provider::{NewVoiceProvider, RedialRule, VoiceProvider};

/// The settings in the form, and what can't be read. Settings without a field stay unchanged.
pub(super) fn read(
    fields: &Fields,
    current: Option<&VoiceProvider>,
) -> (NewVoiceProvider, Vec<FieldError>) {
    let mut new = current.map(NewVoiceProvider::from).unwrap_or_default();
    let mut reader = Reader {
        fields,
        errors: Vec::new(),
    };
    let text = |setting: Setting| fields.filled(setting.field().name).map(str::to_owned);
    let raw = |setting: Setting| fields.get(setting.field().name).unwrap_or_default();
    raw(Setting::AccountSid).clone_into(&mut new.account_sid);
    raw(Setting::From).clone_into(&mut new.from);
    new.auth_token = text(Setting::AuthToken).map(SecretString::from);
    new.ring_timeout_s = reader.whole_number(Setting::RingTimeout);
    new.calls_per_second = changed_rate(fields);
    let countries = raw(Setting::AllowedCountries)
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty());
    new.allowed_countries = countries.map(str::to_owned).collect();
    new.default_locale = text(Setting::DefaultLocale);
    new.region = text(Setting::Region);
    new.test_mode = fields.get(Setting::TestMode.field().name) == Some("yes");
    new.voicemail = text(Setting::Voicemail);
    reader.read_speech(&mut new);
    reader.read_redial(&mut new.redial);
    (new, reader.errors)
}

/// The rate limit, if it was changed in the form. It belongs to the account, so it may have been
/// changed elsewhere since the form was shown.
fn changed_rate(fields: &Fields) -> Option<f64> {
    let displayed = fields.filled("displayed_calls_per_second");
    let entered = fields.filled(Setting::CallsPerSecond.field().name);
    let changed = entered.filter(|rate| Some(*rate) != displayed)?;
    // What is no number is out of range, too.
    Some(changed.parse().unwrap_or(f64::NAN))
}

struct Reader<'a> {
    fields: &'a Fields,
    errors: Vec<FieldError>,
}

impl Reader<'_> {
    fn whole_number(&mut self, setting: Setting) -> Option<u64> {
        self.whole_number_in(setting, setting.field().name)
    }

    /// A field's whole number; an error of the setting if it is none.
    fn whole_number_in(&mut self, setting: Setting, name: &str) -> Option<u64> {
        let number = self.fields.filled(name)?.parse().ok();
        if number.is_none() {
            self.errors
                .push(FieldError::of_setting(setting, "must be a whole number"));
        }
        number
    }

    /// As [`whole_number_in`](Self::whole_number_in); a greater number is out of range as
    /// [`u32::MAX`], too.
    fn small_number_in(&mut self, setting: Setting, name: &str) -> Option<u32> {
        let number = self.whole_number_in(setting, name)?;
        Some(u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn small_number(&mut self, setting: Setting) -> Option<u32> {
        self.small_number_in(setting, setting.field().name)
    }

    fn read_speech(&mut self, new: &mut NewVoiceProvider) {
        let speech = &mut new.speech;
        if let Some(rate) = self.small_number(Setting::SpeechRate) {
            speech.rate_percent = rate;
        }
        if let Some(pause) = self.small_number(Setting::DigitPause) {
            speech.pause_ms = pause;
        }
        if let Some(readings) = self.small_number(Setting::Readings) {
            speech.readings = readings;
        }
        let text = |setting: Setting| self.fields.filled(setting.field().name);
        set_or_remove(&mut speech.brands, EVERY_LOCALE, text(Setting::Brands));
        // The greeting is in the language that it was displayed for, or else in the chosen one.
        let displayed = self.fields.filled("greeting_locale");
        if let Some(locale) = displayed.or(new.default_locale.as_deref()) {
            set_or_remove(&mut speech.greetings, locale, text(Setting::Greetings));
        } else if text(Setting::Greetings).is_some() {
            let message = "select the language of the greeting first";
            self.errors
                .push(FieldError::of_setting(Setting::Greetings, message));
        }
    }

    fn read_redial(&mut self, redial: &mut BTreeMap<String, RedialRule>) {
        for outcome in RedialOutcome::ALL {
            let word = outcome.as_str();
            let times = self.small_number_in(Setting::Redial, &format!("redial_{word}_times"));
            let after_s = self.whole_number_in(Setting::Redial, &format!("redial_{word}_after"));
            match times {
                None | Some(0) => drop(redial.remove(word)),
                Some(times) => {
                    let rule = RedialRule {
                        times,
                        after_s: after_s.unwrap_or(super::form::DEFAULT_REDIAL_AFTER_S),
                    };
                    redial.insert(word.to_owned(), rule);
                }
            }
        }
    }
}

fn set_or_remove(map: &mut BTreeMap<String, String>, key: &str, value: Option<&str>) {
    match value {
        Some(value) => drop(map.insert(key.to_owned(), value.to_owned())),
        None => drop(map.remove(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_names_and_unreadable_numbers_are_errors() {
        let fields = Fields::for_test(&[
            ("account_sid", "AC1"),
            ("from", "+16175551212"),
            ("auth_token", ""),
            ("allowed_countries", "us, ca"),
            ("default_locale", "de-DE"),
            ("displayed_calls_per_second", "2.5"),
            ("calls_per_second", "2.5"),
            ("speech.readings", "2"),
            ("speech.rate_percent", "fast"),
            ("speech.greetings", "Hallo"),
            ("redial_busy_times", "2"),
            ("redial_no_answer_times", "0"),
        ]);
        let (new, errors) = read(&fields, None);
        assert_eq!(new.account_sid, "AC1");
        assert!(new.auth_token.is_none(), "an empty field keeps the token");
        assert_eq!(new.allowed_countries, ["us", "ca"]);
        assert_eq!(new.calls_per_second, None, "it was not changed");
        assert_eq!((new.speech.readings, new.speech.rate_percent), (2, 85));
        assert_eq!(new.speech.greetings["de-DE"], "Hallo");
        assert_eq!(new.redial.keys().collect::<Vec<_>>(), ["busy"]);
        assert_eq!(new.redial["busy"].after_s, 30);
        assert_eq!(
            errors,
            [FieldError::new(
                "speech.rate_percent",
                "must be a whole number"
            )]
        );
    }
}
