//! The voices that the simulator knows: Twilio's basic ones, and those in `voices.tsv`, a selection
//! of the voices of Amazon Polly and Google that Twilio offers
//! (<https://www.twilio.com/docs/voice/twiml/say/text-speech#available-voices-and-languages>).
//!
//! Twilio has more. The simulator refuses the others, because a voice that Twilio doesn't know, or
//! that doesn't speak the language, makes a silent call.

/// A heading, then a language and a voice per line, separated by a tab.
const TABLE: &str = include_str!("voices.tsv");

/// The languages that the basic voices `man` and `woman` speak.
const BASIC_LANGUAGES: [&str; 6] = ["de", "en", "en-GB", "en-US", "es", "fr"];

/// The families of voices, which differ in the SSML that they support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoiceFamily {
    /// `man`, `woman`, or the account's default voice: no SSML.
    Basic,
    /// Amazon Polly, standard voices: all SSML.
    PollyStandard,
    /// Amazon Polly, neural voices: no `emphasis`.
    PollyNeural,
    /// Google: no `w`.
    Google,
}

impl VoiceFamily {
    /// The family of a voice, if the simulator knows the voice and it speaks the language.
    pub(crate) fn of(voice: Option<&str>, language: &str) -> Option<Self> {
        match voice {
            None => (is_language(language) || BASIC_LANGUAGES.contains(&language))
                .then_some(Self::Basic),
            Some("man" | "woman") => BASIC_LANGUAGES.contains(&language).then_some(Self::Basic),
            Some(voice) => rows()
                .any(|row| row == (language, voice))
                .then(|| Self::of_name(voice)),
        }
    }

    fn of_name(voice: &str) -> Self {
        if voice.starts_with("Google.") {
            Self::Google
        } else if voice.ends_with("-Neural") {
            Self::PollyNeural
        } else {
            Self::PollyStandard
        }
    }

    /// Whether the voices support this SSML element.
    pub(crate) fn supports(self, element: &str) -> bool {
        match self {
            Self::Basic => false,
            Self::PollyStandard => true,
            Self::PollyNeural => element != "emphasis",
            Self::Google => element != "w",
        }
    }

    /// How many characters of text one `Say` may have, SSML not counted.
    pub(crate) fn max_text_chars(self) -> usize {
        match self {
            Self::Basic => 4_000,
            Self::PollyStandard | Self::PollyNeural => 3_000,
            Self::Google => 5_000,
        }
    }
}

/// Whether a voice in the table speaks this language.
pub(crate) fn is_language(language: &str) -> bool {
    rows().any(|(known, _)| known == language)
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once('\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_voice_for_66_languages() {
        let languages: std::collections::BTreeSet<_> =
            rows().map(|(language, _)| language).collect();
        assert_eq!(languages.len(), 66);
        for (language, voice) in rows() {
            assert!(
                voice.starts_with("Polly.") || voice.starts_with("Google."),
                "{language} {voice}"
            );
        }
    }

    #[test]
    fn a_voice_must_speak_the_language() {
        assert_eq!(
            VoiceFamily::of(Some("Polly.Vicki-Neural"), "de-DE"),
            Some(VoiceFamily::PollyNeural)
        );
        assert_eq!(
            VoiceFamily::of(Some("Polly.Zeina"), "arb"),
            Some(VoiceFamily::PollyStandard)
        );
        assert_eq!(
            VoiceFamily::of(Some("Google.hu-HU-Wavenet-B"), "hu-HU"),
            Some(VoiceFamily::Google)
        );
        assert_eq!(
            VoiceFamily::of(Some("woman"), "en-GB"),
            Some(VoiceFamily::Basic)
        );
        assert_eq!(VoiceFamily::of(None, "de-DE"), Some(VoiceFamily::Basic));
        for (voice, language) in [
            (Some("Polly.Vicki-Neural"), "en-US"),
            (Some("Polly.Unknown"), "de-DE"),
            (Some("woman"), "ja-JP"),
            (Some("alice"), "en-US"),
            (None, "uk-UA"),
        ] {
            assert_eq!(
                VoiceFamily::of(voice, language),
                None,
                "{voice:?} {language}"
            );
        }
    }
}
