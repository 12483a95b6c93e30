//! The voices that the simulator knows: Twilio's basic ones, and of Polly's and Google's the best one for each language.
//!
//! Twilio has more. A voice that isn't here is refused all the same: an unknown voice, or one of another language, is a
//! silent call, and the simulator is there to catch that.

/// `language` and `voice`, separated by a tab, after a heading.
const TABLE: &str = include_str!("voices.tsv");

/// The languages that `man` and `woman` speak.
const BASIC_LANGUAGES: [&str; 6] = ["de", "en", "en-GB", "en-US", "es", "fr"];

/// Who speaks, with what that voice can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `man`, `woman`, or the account's default: no SSML at all.
    Basic,
    /// Amazon Polly, standard voices: all SSML.
    PollyStandard,
    /// Amazon Polly, neural voices: no `emphasis`.
    PollyNeural,
    /// Google: no `w`.
    Google,
}

impl Family {
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

    /// Whether the voice can take this SSML element.
    pub(crate) fn takes(self, element: &str) -> bool {
        match self {
            Self::Basic => false,
            Self::PollyStandard => true,
            Self::PollyNeural => element != "emphasis",
            Self::Google => element != "w",
        }
    }

    /// How many characters of text one `Say` may have, without SSML.
    pub(crate) fn longest_text(self) -> usize {
        match self {
            Self::Basic => 4_000,
            Self::PollyStandard | Self::PollyNeural => 3_000,
            Self::Google => 5_000,
        }
    }
}

/// Whether any voice speaks this language.
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
            Family::of(Some("Polly.Vicki-Neural"), "de-DE"),
            Some(Family::PollyNeural)
        );
        assert_eq!(
            Family::of(Some("Polly.Zeina"), "arb"),
            Some(Family::PollyStandard)
        );
        assert_eq!(
            Family::of(Some("Google.hu-HU-Wavenet-B"), "hu-HU"),
            Some(Family::Google)
        );
        assert_eq!(Family::of(Some("woman"), "en-GB"), Some(Family::Basic));
        assert_eq!(Family::of(None, "de-DE"), Some(Family::Basic));
        for (voice, language) in [
            (Some("Polly.Vicki-Neural"), "en-US"),
            (Some("Polly.Nobody"), "de-DE"),
            (Some("woman"), "ja-JP"),
            (Some("alice"), "en-US"),
            (None, "uk-UA"),
        ] {
            assert_eq!(Family::of(voice, language), None, "{voice:?} {language}");
        }
    }
}
