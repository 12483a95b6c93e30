//! How codes are read, as the API and the pages have it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use voice_otp::speech::SpeechStyle;

/// How codes are read; `voice-otp speech preview` shows the script.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Speech {
    /// Speech rate, in percent of the voice's own rate: 50 to 120.
    #[schema(minimum = 50, maximum = 120)]
    pub(crate) rate_percent: u32,
    /// Pause after each character of the code, in milliseconds: 200 to 2,000.
    #[schema(minimum = 200, maximum = 2_000)]
    pub(crate) pause_ms: u32,
    /// How often the code is read: 1 to 5.
    #[schema(minimum = 1, maximum = 5)]
    pub(crate) readings: u32,
    /// Brand that the greeting says, by locale; `*` for every locale without its own.
    pub(crate) brands: BTreeMap<String, String>,
    /// Custom greetings by locale; `{brand}` stands for the brand.
    pub(crate) greetings: BTreeMap<String, String>,
    /// Twilio voices by locale; the first voice of the locale where omitted.
    pub(crate) voices: BTreeMap<String, String>,
}

impl Default for Speech {
    fn default() -> Self {
        Self::from(&SpeechStyle::default())
    }
}

impl From<&SpeechStyle> for Speech {
    fn from(style: &SpeechStyle) -> Self {
        let SpeechStyle {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        } = style.clone();
        Self {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        }
    }
}

impl From<&Speech> for SpeechStyle {
    fn from(speech: &Speech) -> Self {
        let Speech {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        } = speech.clone();
        Self {
            rate_percent,
            pause_ms,
            readings,
            brands,
            greetings,
            voices,
        }
    }
}
