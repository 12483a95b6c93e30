use std::collections::BTreeMap;

use super::*;

const LIFE: Duration = Duration::from_mins(11);

fn locale(tag: &str) -> Locale {
    Locale::parse(tag).unwrap()
}

fn code(text: &str) -> OtpCode {
    OtpCode::parse(text).unwrap()
}

fn spoken(text: &str, tag: &str) -> String {
    let style = SpeechStyle::default();
    let script = Speaker::new(Some(&locale(tag)), None, None, &style).message(&code(text), LIFE);
    assert_eq!(script.locale, tag);
    script.text()
}

#[test]
fn the_language_is_the_requests_or_the_tenants_or_the_countrys_or_english() {
    let style = SpeechStyle::default();
    for (requested, tenant, country, tag) in [
        (Some("es-MX"), Some("fr-FR"), "US", "es-MX"),
        (Some("tlh"), Some("fr-CH"), "ES", "fr-FR"),
        (Some("tlh"), None, "AT", "de-AT"),
        (None, None, "CO", "es-MX"),
        (None, None, "UA", "en-US"),
    ] {
        let (requested, tenant) = (requested.map(locale), tenant.map(locale));
        let speaker = Speaker::new(
            requested.as_ref(),
            tenant.as_ref(),
            Country::parse(country).ok(),
            &style,
        );
        assert_eq!(speaker.message(&code("1234"), LIFE).locale, tag);
    }
    assert_eq!(
        Speaker::new(None, None, None, &style)
            .message(&code("1234"), LIFE)
            .locale,
        "en-US"
    );
}

#[test]
fn the_code_is_read_three_times_a_character_at_a_time_with_a_pause_after_each() {
    let style = SpeechStyle::default();
    let script = Speaker::new(None, None, None, &style).message(&code("04A7"), LIFE);
    let shown = |part: &Part| match part {
        Part::Text(text) => format!("{text}|"),
        Part::Symbol(word) => word.clone(),
        Part::Break(length) => format!("<{}>", length.as_millis()),
        Part::Pause(_) => "\n".to_owned(),
    };
    let text: String = script.parts.iter().map(shown).collect();
    assert_eq!(
        text.matches("<600>zero<600>four<600>A<600>seven<600>")
            .count(),
        3,
        "{text}"
    );
}

#[test]
fn six_digits_are_read_in_two_groups_where_the_language_does_so() {
    let style = SpeechStyle::default();
    let breaks = |tag: &str, text: &str| {
        let script =
            Speaker::new(Some(&locale(tag)), None, None, &style).message(&code(text), LIFE);
        let lengths = script.parts.iter().filter_map(|part| {
            if let Part::Break(length) = part {
                Some(length.as_millis())
            } else {
                None
            }
        });
        lengths.take(7).collect::<Vec<_>>()
    };
    assert_eq!(
        breaks("en-US", "493027"),
        [600, 600, 600, 900, 600, 600, 600]
    );
    assert_eq!(breaks("fr-FR", "493027"), [600; 7]);
    assert_eq!(breaks("en-US", "49302A"), [600; 7]);
}

#[test]
fn german_reads_no_ordinals_zeros_are_read_and_letters_are_spelled() {
    assert!(spoken("4100", "de-DE").contains("vier eins null null"));
    assert!(spoken("0007", "en-US").contains("zero zero zero seven"));
    assert!(spoken("0042", "en-GB").contains("zero zero four two"));
    assert!(spoken("a1b2", "en-US").contains("A one B two"));
    for supported in locales() {
        let text = spoken("493027", supported.locale);
        assert!(
            !text.contains("4.") && !text.contains('4'),
            "{}: {text}",
            supported.locale
        );
    }
}

#[test]
fn the_validity_that_is_read_is_never_longer_than_the_codes_life() {
    let style = SpeechStyle::default();
    let speaker = Speaker::new(None, None, None, &style);
    let minutes = |life: u64| {
        let text = speaker
            .message(&code("493027"), Duration::from_secs(life))
            .text();
        let (_, rest) = text.split_once("This code is valid for ")?;
        rest.split(' ').next().map(str::to_owned)
    };
    assert_eq!(
        minutes(60).as_deref(),
        None,
        "less than a minute is left once the sentence has been said"
    );
    assert_eq!(minutes(60 + 20).as_deref(), Some("one"));
    assert_eq!(minutes(180).as_deref(), Some("2"));
    assert_eq!(minutes(3600).as_deref(), Some("59"));
}

#[test]
fn a_tenant_has_its_own_greeting_brand_voice_and_rate() {
    let by_locale = |tag: &str, text: &str| BTreeMap::from([(tag.to_owned(), text.to_owned())]);
    let style = SpeechStyle {
        brands: by_locale(EVERY_LOCALE, "Acme"),
        greetings: by_locale("de-AT", "Servus von {brand}."),
        voices: by_locale("en-US", "Polly.Matthew-Neural"),
        rate_percent: 100,
        pause_ms: 300,
        readings: 1,
    };
    let message = |tag: &str| {
        Speaker::new(Some(&locale(tag)), None, None, &style).message(&code("1234"), LIFE)
    };
    assert!(message("de-AT").text().starts_with("Servus von Acme."));
    assert!(
        message("de-DE")
            .text()
            .starts_with("Guten Tag, hier ist Acme.")
    );
    let english = message("en-US");
    assert_eq!(
        (english.voice.as_str(), english.rate_percent),
        ("Polly.Matthew-Neural", 100)
    );
    assert_eq!(english.text().matches("one two three four").count(), 1);
    assert!(
        english
            .parts
            .contains(&Part::Break(Duration::from_millis(300)))
    );
    let slow = SpeechStyle {
        rate_percent: 50,
        ..style.clone()
    };
    let slower = Speaker::new(None, None, None, &slow).message(&code("1234"), LIFE);
    assert!(slower.heard_after > english.heard_after);
}

#[test]
fn a_callee_who_presses_the_key_hears_the_code_and_may_repeat_it_a_limited_number_of_times() {
    let style = SpeechStyle {
        readings: 2,
        ..SpeechStyle::default()
    };
    let speaker = Speaker::new(None, None, None, &style);
    assert_eq!(
        speaker.prompt().text(),
        "Hello. To hear your code, press one."
    );
    let first = speaker.reading(&code("4930"), LIFE, 1).text();
    assert!(
        first.contains("Your verification code is: four nine three zero")
            && first.ends_with("To hear it again, press one.")
    );
    let last = speaker.reading(&code("4930"), LIFE, 2).text();
    assert!(
        last.contains("Once more") && last.ends_with("Goodbye."),
        "{last}"
    );
}

#[test]
fn a_call_counts_as_heard_only_after_the_first_reading() {
    let style = SpeechStyle::default();
    let script = Speaker::new(None, None, None, &style).message(&code("493027"), LIFE);
    assert!(
        (7..20).contains(&script.heard_after.as_secs()),
        "{:?}",
        script.heard_after
    );
    assert!(
        !format!("{script:?}").contains("four"),
        "a script doesn't show its code"
    );
}

/// The scripts of every locale, as its speakers have approved them. After an intended change,
/// `VOICE_OTP_WRITE_GOLDEN=1` rewrites the file.
#[test]
fn every_locale_says_what_its_speakers_approved() {
    let style = SpeechStyle::default();
    let branded = SpeechStyle {
        brands: BTreeMap::from([(EVERY_LOCALE.to_owned(), "Acme".to_owned())]),
        readings: 1,
        ..SpeechStyle::default()
    };
    let mut all = String::new();
    for supported in locales() {
        let requested = locale(supported.locale);
        let speaker = Speaker::new(Some(&requested), None, None, &style);
        let other = Speaker::new(Some(&requested), None, None, &branded);
        all.push_str(&format!(
            "# {} {}\n{}\n- {}\n- {}\n- {}\n\n",
            supported.locale,
            supported.voice,
            speaker.message(&code("493027"), LIFE).text(),
            speaker.prompt().text(),
            speaker
                .reading(&code("A1B2"), Duration::from_secs(90), 1)
                .text()
                .replace('\n', " "),
            other
                .message(&code("5816"), Duration::from_mins(3))
                .text()
                .replace('\n', " "),
        ));
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/speech/golden.txt");
    if std::env::var_os("VOICE_OTP_WRITE_GOLDEN").is_some() {
        std::fs::write(file, &all).unwrap();
    }
    assert_same_lines(&std::fs::read_to_string(file).unwrap(), &all);
}

/// Compares line by line, so that a failure shows the line.
fn assert_same_lines(golden: &str, now: &str) {
    for (number, (golden, now)) in (1..).zip(golden.lines().zip(now.lines())) {
        assert_eq!(golden, now, "line {number}");
    }
    assert_eq!(golden.lines().count(), now.lines().count());
}
