//! Tests of the `TwiML` of voice-otp's scripts: in every locale and with every voice, Twilio must
//! accept it, and the callee must hear the code.

use std::collections::BTreeMap;
use std::time::Duration;

use voice_otp::speech::{Speaker, SpeechStyle, locales};
use voice_otp_schemas::{Locale, OtpCode};
use voice_otp_twilio::twiml::render;

use crate::Transcript;

fn code(text: &str) -> OtpCode {
    OtpCode::parse(text).unwrap()
}

#[test]
fn the_longest_script_of_every_locale_is_accepted_and_heard() {
    let greeting = "x".repeat(200);
    for supported in locales() {
        let locale = Locale::parse(supported.locale).unwrap();
        let style = SpeechStyle {
            readings: 5,
            greetings: BTreeMap::from([(supported.locale.to_owned(), greeting.clone())]),
            ..SpeechStyle::default()
        };
        let script = Speaker::new(Some(&locale), None, None, &style)
            .message(&code("A930278561"), Duration::from_hours(1));
        let xml = render(&script).unwrap();
        let heard = Transcript::of(&xml).unwrap();
        assert_eq!(
            heard.readings_heard(),
            vec!["A930278561"; 5],
            "{}",
            supported.locale
        );
        // Google's voices accept up to 4,500 characters of URL-encoded text, SSML included.
        let document = roxmltree::Document::parse(&xml).unwrap();
        for say in document
            .descendants()
            .filter(|node| node.has_tag_name("Say"))
        {
            let text = xml.get(say.range()).unwrap();
            let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            assert!(
                encoded.len() < 4_500,
                "{}: {}",
                supported.locale,
                encoded.len()
            );
        }
    }
}

#[test]
fn the_code_is_heard_with_every_other_voice_of_a_locale() {
    for supported in locales() {
        let locale = Locale::parse(supported.locale).unwrap();
        for voice in supported.other_voices {
            let style = SpeechStyle {
                voices: BTreeMap::from([(supported.locale.to_owned(), voice.clone())]),
                ..SpeechStyle::default()
            };
            let speaker = Speaker::new(Some(&locale), None, None, &style);
            let xml = render(&speaker.message(&code("4930"), Duration::ZERO)).unwrap();
            assert!(xml.contains(voice.as_str()));
            let heard = Transcript::of(&xml).unwrap();
            assert_eq!(heard.digits_heard(), "4930", "{voice}");
        }
    }
}
