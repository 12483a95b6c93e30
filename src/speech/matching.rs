//! Finds the supported locale for a language tag or a country, by CLDR's aliases, likely subtags
//! and parents.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use icu_locale::fallback::LocaleFallbackIterator;
use icu_locale::{Locale as Tag, LocaleCanonicalizer, LocaleExpander, LocaleFallbacker};
use voice_otp_schemas::Locale;
use voice_otp_schemas::phone::Country;

use super::language::LANGUAGES;

/// Supported locales, by the canonical form of their tags and aliases.
static CANONICAL: LazyLock<BTreeMap<String, &'static str>> = LazyLock::new(|| {
    let tags = || {
        LANGUAGES
            .iter()
            .map(|(tag, language)| (tag.as_str(), language))
    };
    let own = tags().map(|(tag, _)| (tag, tag));
    let aliases = tags()
        .flat_map(|(tag, language)| language.aliases.iter().map(move |it| (it.as_str(), tag)));
    // Aliases come last, so that an alias wins over a tag with the same canonical form.
    own.chain(aliases)
        .filter_map(|(name, tag)| Some((parents(parse(name)?).get().to_string(), tag)))
        .collect()
});

/// The supported locale that is nearest to a tag: itself, one that it is an alias of, or the
/// nearest relative. `None` if the language isn't supported.
pub(super) fn nearest(locale: &Locale) -> Option<&'static str> {
    let exact = LANGUAGES
        .keys()
        .find(|tag| tag.eq_ignore_ascii_case(locale.as_str()));
    exact
        .map(String::as_str)
        .or_else(|| ancestor(parse(locale.as_str())?))
}

/// The supported locale of each country's most spoken language. Every call needs one, so they are
/// computed once.
static OF_COUNTRIES: LazyLock<BTreeMap<String, &'static str>> = LazyLock::new(|| {
    let letters = || 'A'..='Z';
    let codes = letters().flat_map(|first| letters().map(move |second| format!("{first}{second}")));
    codes
        .filter_map(|code| Some((code.clone(), likely(&code)?)))
        .collect()
});

/// The supported locale of a country's most spoken language.
pub(super) fn of_country(country: Country) -> Option<&'static str> {
    OF_COUNTRIES.get(country.as_str()).copied()
}

fn likely(country: &str) -> Option<&'static str> {
    let mut tag = parse(&format!("und-{country}"))?;
    LocaleExpander::new_extended().maximize(&mut tag.id);
    if tag.id.language.is_unknown() {
        // CLDR omits English as the default.
        tag.id.language = icu_locale::subtags::language!("en");
    }
    if tag.id.language != icu_locale::subtags::language!("zh") {
        // A script isn't spoken, but for Chinese it decides between locales: Hant means cmn-TW.
        tag.id.script = None;
    }
    ancestor(tag)
}

fn ancestor(tag: Tag) -> Option<&'static str> {
    let mut parents = parents(tag);
    loop {
        if parents.get().is_unknown() {
            return None;
        }
        if let Some(found) = CANONICAL.get(&parents.get().to_string()) {
            return Some(found);
        }
        parents.step();
    }
}

/// The canonical form of a tag, then its parents, one after the other.
fn parents(mut tag: Tag) -> LocaleFallbackIterator<'static> {
    LocaleCanonicalizer::new_common().canonicalize(&mut tag);
    LocaleFallbacker::new()
        .for_config(icu_locale::fallback::LocaleFallbackConfig::default())
        .fallback_for((&tag).into())
}

fn parse(text: &str) -> Option<Tag> {
    Tag::try_from_str(text).ok().or_else(|| {
        // Unicode's tags have no extended language subtags, as in `zh-yue`. The canonical form is
        // the extended subtag alone (RFC 5646, section 4.5).
        let (_, rest) = text.split_once('-')?;
        let extended = rest
            .split('-')
            .next()
            .is_some_and(|part| part.len() == 3 && part.bytes().all(|b| b.is_ascii_alphabetic()));
        Tag::try_from_str(rest).ok().filter(|_| extended)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_finds_itself_or_its_nearest_relative() {
        for (requested, found) in [
            ("de-DE", "de-DE"),
            ("DE-de", "de-DE"),
            ("de", "de-DE"),
            ("de-CH", "de-DE"),
            ("de-AT", "de-AT"),
            ("de-Latn-AT", "de-AT"),
            ("en", "en-US"),
            ("en-CA", "en-US"),
            ("en-GB-WLS", "en-GB-WLS"),
            ("en-HK", "en-GB"),
            ("es", "es-ES"),
            ("es-419", "es-MX"),
            ("es-AR", "es-MX"),
            ("es-PR", "es-MX"),
            ("es-US", "es-US"),
            ("pt", "pt-BR"),
            ("pt-AO", "pt-PT"),
            ("fr-CH", "fr-FR"),
            ("nl-BE", "nl-BE"),
            ("zh", "cmn-CN"),
            ("zh-CN", "cmn-CN"),
            ("zh-Hans-SG", "cmn-CN"),
            ("zh-TW", "cmn-TW"),
            ("zh-Hant", "cmn-TW"),
            ("zh-HK", "yue-HK"),
            ("zh-yue", "yue-HK"),
            ("zh-cmn-Hans-CN", "cmn-CN"),
            ("yue", "yue-HK"),
            ("yue-Hans-CN", "yue-CN"),
            ("ar", "ar-XA"),
            ("ar-EG", "ar-XA"),
            ("ar-AE", "ar-AE"),
            ("arb", "arb"),
            ("iw", "he-IL"),
            ("tl", "fil-PH"),
            ("no", "nb-NO"),
            ("nn-NO", "nb-NO"),
            ("in-ID", "id-ID"),
        ] {
            assert_eq!(
                nearest(&Locale::parse(requested).unwrap()),
                Some(found),
                "{requested}"
            );
        }
        for unsupported in [
            "uk-UA", "sr-RS", "am-ET", "hr", "sl", "et", "sw", "ur", "fa", "tlh",
        ] {
            assert_eq!(
                nearest(&Locale::parse(unsupported).unwrap()),
                None,
                "{unsupported}"
            );
        }
    }

    #[test]
    fn a_country_has_the_language_most_spoken_there() {
        for (country, found) in [
            ("DE", Some("de-DE")),
            ("AT", Some("de-AT")),
            ("CH", Some("de-DE")),
            ("US", Some("en-US")),
            ("CA", Some("en-US")),
            ("GB", Some("en-GB")),
            ("MX", Some("es-MX")),
            ("AR", Some("es-MX")),
            ("ES", Some("es-ES")),
            ("BR", Some("pt-BR")),
            ("IN", Some("hi-IN")),
            ("TW", Some("cmn-TW")),
            ("HK", Some("yue-HK")),
            ("EG", Some("ar-XA")),
            ("NO", Some("nb-NO")),
            ("JP", Some("ja-JP")),
            ("UA", None),
            ("IR", None),
        ] {
            assert_eq!(
                of_country(Country::parse(country).unwrap()),
                found,
                "{country}"
            );
        }
    }
}
