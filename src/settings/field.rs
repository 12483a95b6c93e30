//! One row for each setting of a tenant: its names, its help text and how to read it.
//!
//! The command line takes flags and help from here, the API its field names, the console's form its
//! labels and hints, and the audit log the names and values of what changed. A new setting needs a
//! row here, a member of [`VoiceSettings`] and of [`Draft`](super::Draft)
//! with its check, a column in `store`, and an argument or a form field where operators enter it.

use secrecy::SecretString;
use serde_json::json;
use voice_otp_schemas::PhoneNumber;

use super::VoiceSettings;

/// A setting of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Setting {
    /// [`VoiceSettings::account_sid`]
    AccountSid,
    /// [`Credentials::auth_token`](super::Credentials::auth_token)
    AuthToken,
    /// [`Credentials::secondary_auth_token`](super::Credentials::secondary_auth_token)
    SecondaryAuthToken,
    /// [`ApiKey::sid`](super::ApiKey::sid)
    ApiKeySid,
    /// [`ApiKey::secret`](super::ApiKey::secret)
    ApiKeySecret,
    /// [`VoiceSettings::from`]
    From,
    /// [`VoiceSettings::region`]
    Region,
    /// [`VoiceSettings::default_locale`]
    DefaultLocale,
    /// [`VoiceSettings::ring_timeout`]
    RingTimeout,
    /// [`VoiceSettings::allowed_countries`]
    AllowedCountries,
    /// [`VoiceSettings::calls_per_second`]
    CallsPerSecond,
    /// [`VoiceSettings::test_mode`]
    TestMode,
    /// [`VoiceSettings::publishers`]
    Publishers,
    /// [`SpeechStyle::rate_percent`](crate::speech::SpeechStyle::rate_percent)
    SpeechRate,
    /// [`SpeechStyle::pause_ms`](crate::speech::SpeechStyle::pause_ms)
    DigitPause,
    /// [`SpeechStyle::readings`](crate::speech::SpeechStyle::readings)
    Readings,
    /// [`SpeechStyle::brands`](crate::speech::SpeechStyle::brands)
    Brands,
    /// [`SpeechStyle::greetings`](crate::speech::SpeechStyle::greetings)
    Greetings,
    /// [`SpeechStyle::voices`](crate::speech::SpeechStyle::voices)
    Voices,
    /// [`VoiceSettings::voicemail`]
    Voicemail,
    /// [`VoiceSettings::redial`]
    Redial,
    /// [`VoiceSettings::enabled`]
    Enabled,
}

/// A setting's names and texts.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The setting that this row describes.
    pub setting: Setting,
    /// The name in the API, in the audit log and in `tenant show`; a dot separates nested members.
    pub name: &'static str,
    /// The flag of `voice-otp tenant set`, with its dashes.
    pub flag: &'static str,
    /// The label in the console.
    pub label: &'static str,
    /// What the setting does: a clause without full stop.
    pub summary: &'static str,
    /// Which values are accepted, a clause without full stop; empty where the summary says it.
    pub accepts: &'static str,
    /// The value of a setting that was never set; empty where it is required or off.
    pub default: &'static str,
    read: fn(&VoiceSettings) -> Value,
}

/// A setting's value, as far as it may be shown.
#[derive(Debug, Clone)]
pub enum Value {
    /// A value that may be shown as it is.
    Plain(serde_json::Value),
    /// A secret: only whether it is set, and whether it changed, may be shown.
    Secret(Option<SecretString>),
    /// A telephone number, which the audit log shows masked.
    Number(PhoneNumber),
}

/// Every setting, in the order in which settings are shown.
pub const FIELDS: &[Field] = &[
    Field {
        setting: Setting::AccountSid,
        name: "account_sid",
        flag: "--account-sid",
        label: "Twilio SID",
        summary: "Twilio account that places the calls",
        accepts: "AC followed by 32 hexadecimal digits",
        default: "",
        read: |settings| Value::Plain(settings.account_sid.as_str().into()),
    },
    Field {
        setting: Setting::AuthToken,
        name: "auth_token",
        flag: "--auth-token-file",
        label: "Twilio Auth Token",
        summary: "Twilio auth token: authenticates requests and verifies callback signatures",
        accepts: "",
        default: "",
        read: |settings| Value::Secret(Some(settings.credentials.auth_token.clone())),
    },
    Field {
        setting: Setting::SecondaryAuthToken,
        name: "secondary_auth_token",
        flag: "--secondary-auth-token-file",
        label: "Secondary auth token",
        summary: "second auth token, accepted in callback signatures while the first is rotated",
        accepts: "empty removes it",
        default: "",
        read: |settings| Value::Secret(settings.credentials.secondary_auth_token.clone()),
    },
    Field {
        setting: Setting::ApiKeySid,
        name: "api_key_sid",
        flag: "--api-key-sid",
        label: "API key SID",
        summary: "API key that authenticates requests instead of the auth token",
        accepts: "SK followed by 32 hexadecimal digits; empty removes the key",
        default: "",
        read: |settings| {
            let key = settings.credentials.api_key.as_ref();
            Value::Plain(json!(key.map(|key| key.sid.as_str())))
        },
    },
    Field {
        setting: Setting::ApiKeySecret,
        name: "api_key_secret",
        flag: "--api-key-secret-file",
        label: "API key secret",
        summary: "secret of the API key",
        accepts: "",
        default: "",
        read: |settings| {
            let key = settings.credentials.api_key.as_ref();
            Value::Secret(key.map(|key| key.secret.clone()))
        },
    },
    Field {
        setting: Setting::From,
        name: "from",
        flag: "--from",
        label: "From",
        summary: "caller ID: a voice number of the account, or one that it verified",
        accepts: "E.164 format, for example +16175551212",
        default: "",
        read: |settings| Value::Number(settings.from.clone()),
    },
    Field {
        setting: Setting::Region,
        name: "region",
        flag: "--region",
        label: "Twilio region",
        summary: "Twilio region of the account, with its edge",
        accepts: "for example ie1 or dublin.ie1; empty removes it",
        default: "us1",
        read: |settings| Value::Plain(json!(settings.region.as_ref().map(ToString::to_string))),
    },
    Field {
        setting: Setting::DefaultLocale,
        name: "default_locale",
        flag: "--locale",
        label: "Language",
        summary: "language of requests that name none",
        accepts: "BCP 47, for example de-DE; empty removes it",
        default: "the language of the number's country",
        read: |settings| Value::Plain(json!(settings.default_locale)),
    },
    Field {
        setting: Setting::RingTimeout,
        name: "ring_timeout_s",
        flag: "--ring-timeout",
        label: "Ring timeout (seconds)",
        summary: "how long a phone rings before the call counts as not answered",
        accepts: "5 to 600 seconds",
        default: "30 seconds",
        read: |settings| Value::Plain(settings.ring_timeout.as_secs().into()),
    },
    Field {
        setting: Setting::AllowedCountries,
        name: "allowed_countries",
        flag: "--allow-country",
        label: "Allowed countries",
        summary: "countries that may be called",
        accepts: "ISO 3166-1 alpha-2, for example US",
        default: "the country of the From number",
        read: |settings| {
            let countries = settings.allowed_countries.iter();
            Value::Plain(json!(
                countries.map(ToString::to_string).collect::<Vec<_>>()
            ))
        },
    },
    Field {
        setting: Setting::CallsPerSecond,
        name: "calls_per_second",
        flag: "--calls-per-second",
        label: "Calls per second",
        summary: "rate limit of the Twilio account, shared by every tenant that uses it",
        accepts: "0.001 to 10000",
        default: "1",
        read: |settings| Value::Plain(settings.calls_per_second.into()),
    },
    Field {
        setting: Setting::TestMode,
        name: "test_mode",
        flag: "--test-mode",
        label: "Test mode",
        summary: "simulate calls: requests are reported as delivered, and no call is placed",
        accepts: "",
        default: "false",
        read: |settings| Value::Plain(settings.test_mode.into()),
    },
    Field {
        setting: Setting::Publishers,
        name: "publishers",
        flag: "--publisher",
        label: "Publishers",
        summary: "RabbitMQ users that may publish for the tenant",
        accepts: "at most 32 names of 1 to 255 bytes; empty allows any publisher",
        default: "any publisher",
        read: |settings| Value::Plain(json!(settings.publishers)),
    },
    Field {
        setting: Setting::SpeechRate,
        name: "speech.rate_percent",
        flag: "--speech-rate",
        label: "Speech rate (percent)",
        summary: "how fast the code is read, in percent of the voice's own rate",
        accepts: "50 to 120",
        default: "85",
        read: |settings| Value::Plain(settings.speech.rate_percent.into()),
    },
    Field {
        setting: Setting::DigitPause,
        name: "speech.pause_ms",
        flag: "--digit-pause",
        label: "Pause between digits (milliseconds)",
        summary: "pause after each character of the code",
        accepts: "200 to 2000 milliseconds",
        default: "600 milliseconds",
        read: |settings| Value::Plain(settings.speech.pause_ms.into()),
    },
    Field {
        setting: Setting::Readings,
        name: "speech.readings",
        flag: "--readings",
        label: "Repetitions",
        summary: "how many times the code is read",
        accepts: "1 to 5",
        default: "3",
        read: |settings| Value::Plain(settings.speech.readings.into()),
    },
    Field {
        setting: Setting::Brands,
        name: "speech.brands",
        flag: "--brand",
        label: "Brand",
        summary: "brand that the greeting names, in every locale or in one",
        accepts: "at most 60 characters of plain text; empty removes it",
        default: "",
        read: |settings| Value::Plain(json!(settings.speech.brands)),
    },
    Field {
        setting: Setting::Greetings,
        name: "speech.greetings",
        flag: "--greeting",
        label: "Greeting",
        summary: "greeting in one locale; {brand} stands for the brand",
        accepts: "at most 200 characters of plain text; empty removes it",
        default: "the greeting of the locale",
        read: |settings| Value::Plain(json!(settings.speech.greetings)),
    },
    Field {
        setting: Setting::Voices,
        name: "speech.voices",
        flag: "--voice",
        label: "Voice",
        summary: "Twilio voice for one locale; voice-otp speech locales lists them",
        accepts: "empty removes it",
        default: "the first voice of the locale",
        read: |settings| Value::Plain(json!(settings.speech.voices)),
    },
    Field {
        setting: Setting::Voicemail,
        name: "voicemail",
        flag: "--voicemail",
        label: "Answering machines",
        summary: "what a call does when a machine answers",
        accepts: "one of speak, hang_up, wait_for_beep or press_key, which waits until 1 is \
                  pressed",
        default: "speak",
        read: |settings| Value::Plain(json!(settings.voicemail)),
    },
    Field {
        setting: Setting::Redial,
        name: "redial",
        flag: "--redial",
        label: "Redial",
        summary: "call again after busy, no_answer, failed or voicemail",
        accepts: "up to 5 times, 5 seconds to 30 minutes after the last call, for example \
                  busy=2/30s; 0 times removes it",
        default: "never",
        read: |settings| Value::Plain(json!(settings.redial)),
    },
    Field {
        setting: Setting::Enabled,
        name: "enabled",
        flag: "--enable",
        label: "Enabled",
        summary: "place calls for the tenant",
        accepts: "",
        default: "true",
        read: |settings| Value::Plain(settings.enabled.into()),
    },
];

impl Setting {
    /// The row of this setting.
    ///
    /// # Panics
    /// Never: a test checks that every setting has a row.
    pub fn field(self) -> &'static Field {
        #[expect(
            clippy::expect_used,
            reason = "a test checks that every setting has a row"
        )]
        FIELDS
            .iter()
            .find(|field| field.setting == self)
            .expect("every setting has a row")
    }
}

impl Field {
    /// The setting's value.
    pub fn read(&self, settings: &VoiceSettings) -> Value {
        (self.read)(settings)
    }

    /// The name of the flag, without dashes.
    pub fn long_flag(&self) -> &'static str {
        self.flag.trim_start_matches('-')
    }

    /// The help text on the command line: the summary, accepted values in parentheses, the default
    /// in brackets.
    pub fn help(&self) -> String {
        let mut help = capitalised(self.summary);
        if !self.accepts.is_empty() {
            help.push_str(&format!(" ({})", self.accepts));
        }
        if !self.default.is_empty() {
            help.push_str(&format!(" [default: {}]", self.default));
        }
        help
    }

    /// The hint below the field in the console's form: [`help`](Self::help) in sentences.
    pub fn hint(&self) -> String {
        let mut hint = format!("{}.", capitalised(self.summary));
        if !self.accepts.is_empty() {
            hint.push_str(&format!(" {}.", capitalised(self.accepts)));
        }
        if !self.default.is_empty() {
            hint.push_str(&format!(" Default: {}.", self.default));
        }
        hint
    }
}

impl std::fmt::Display for Setting {
    /// The name in the API and in the audit log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.field().name)
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_setting_has_one_row_and_every_name_is_unique() {
        // `Enabled` is the last variant, so its number plus one is the number of settings.
        let settings = Setting::Enabled as usize + 1;
        let distinct = |name: fn(&Field) -> &'static str| {
            FIELDS.iter().map(name).collect::<HashSet<_>>().len()
        };
        assert_eq!(FIELDS.len(), settings);
        assert_eq!(distinct(|field| field.name), settings);
        assert_eq!(distinct(|field| field.flag), settings);
        assert_eq!(distinct(|field| field.label), settings);
        let rows: HashSet<Setting> = FIELDS.iter().map(|field| field.setting).collect();
        assert_eq!(rows.len(), settings);
    }
}
