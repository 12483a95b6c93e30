//! What is said in a call, as `TwiML`.

use voice_otp::answer::{Answer, Turn};
use voice_otp::speech::{Part, Script};

/// The longest `Twiml` parameter that Twilio takes, in characters (error 32018).
pub const LONGEST: usize = 4_000;

/// A script is too long to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the TwiML would have {0} characters, Twilio takes 4000")]
pub struct TooLong(pub usize);

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#;

/// How long a key is waited for after each prompt, in seconds.
const KEY_TIMEOUT_S: u32 = 5;

/// Renders a script.
///
/// # Errors
/// [`TooLong`], which no script of ours comes near.
pub fn render(script: &Script) -> Result<String, TooLong> {
    let mut xml = String::from(HEAD);
    say(&mut xml, script);
    xml.push_str("</Response>");
    let length = xml.chars().count();
    if length > LONGEST {
        Err(TooLong(length))
    } else {
        Ok(xml)
    }
}

/// Renders what a call is told that asked. `url` makes the URL to ask next from a turn.
pub fn answer(answer: &Answer, url: impl Fn(Turn) -> String) -> String {
    let mut xml = String::from(HEAD);
    match answer {
        Answer::Say(script) => say(&mut xml, script),
        Answer::UntilKey {
            prompts,
            turn,
            last,
        } => {
            let action = escape(&url(*turn));
            for prompt in prompts {
                xml.push_str(&format!(
                    r#"<Gather input="dtmf" numDigits="1" timeout="{KEY_TIMEOUT_S}" action="{action}" method="POST">"#
                ));
                say(&mut xml, prompt);
                xml.push_str("</Gather>");
            }
            say(&mut xml, last);
        }
        Answer::HangUp => {}
    }
    xml.push_str("<Hangup/></Response>");
    xml
}

fn say(xml: &mut String, script: &Script) {
    let mut saying = false;
    for part in &script.parts {
        let pause = matches!(part, Part::Pause(_));
        if pause && saying {
            xml.push_str("</prosody></Say>");
        } else if !pause && !saying {
            // Neural voices take a prosody's rate, and nothing else of it for sure.
            let (language, voice, rate) = (
                escape(&script.locale),
                escape(&script.voice),
                script.rate_percent,
            );
            xml.push_str(&format!(
                r#"<Say language="{language}" voice="{voice}"><prosody rate="{rate}%">"#
            ));
        }
        if matches!(part, Part::Text(_)) && saying {
            xml.push(' ');
        }
        saying = !pause;
        match part {
            Part::Text(text) | Part::Symbol(text) => xml.push_str(&escape(text)),
            Part::Break(length) => {
                xml.push_str(&format!(r#"<break time="{}ms"/>"#, length.as_millis()))
            }
            Part::Pause(length) => {
                xml.push_str(&format!(r#"<Pause length="{}"/>"#, length.as_secs().max(1)))
            }
        }
    }
    if saying {
        xml.push_str("</prosody></Say>");
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use voice_otp::speech::{Manner, Speaker, locales};
    use voice_otp_schemas::{Locale, OtpCode};

    fn code(text: &str) -> OtpCode {
        OtpCode::parse(text).unwrap()
    }

    #[test]
    fn the_longest_of_every_locale_fits_and_can_be_read_by_twilio() {
        let greeting = "x".repeat(200);
        for spoken in locales() {
            let locale = Locale::parse(spoken.locale).unwrap();
            let greetings =
                std::collections::BTreeMap::from([(spoken.locale.to_owned(), greeting.clone())]);
            let manner = Manner {
                readings: 5,
                greetings,
                ..Manner::default()
            };
            let script = Speaker::new(Some(&locale), None, None, &manner)
                .message(&code("A930278561"), Duration::from_hours(1));
            let xml = render(&script).unwrap();
            let heard = crate::simulator::Transcript::of(&xml).unwrap();
            assert_eq!(
                heard.readings_heard(),
                vec!["A930278561"; 5],
                "{}",
                spoken.locale
            );
            // Google's voices take 4,500 characters of a URL-encoded text at the most, SSML included.
            let document = roxmltree::Document::parse(&xml).unwrap();
            for say in document
                .descendants()
                .filter(|node| node.has_tag_name("Say"))
            {
                let encoded: String =
                    form_urlencoded::byte_serialize(xml.get(say.range()).unwrap().as_bytes())
                        .collect();
                assert!(
                    encoded.len() < 4_500,
                    "{}: {}",
                    spoken.locale,
                    encoded.len()
                );
            }
        }
    }

    #[test]
    fn other_voices_are_as_good() {
        for spoken in locales() {
            let locale = Locale::parse(spoken.locale).unwrap();
            for voice in spoken.other_voices {
                let voices =
                    std::collections::BTreeMap::from([(spoken.locale.to_owned(), voice.clone())]);
                let manner = Manner {
                    voices,
                    ..Manner::default()
                };
                let xml = render(
                    &Speaker::new(Some(&locale), None, None, &manner)
                        .message(&code("4930"), Duration::ZERO),
                )
                .unwrap();
                assert!(xml.contains(voice.as_str()));
                assert_eq!(
                    crate::simulator::Transcript::of(&xml)
                        .unwrap()
                        .digits_heard(),
                    "4930",
                    "{voice}"
                );
            }
        }
    }

    #[test]
    fn markup_in_a_phrase_is_escaped_and_the_longest_is_refused() {
        let manner = Manner::default();
        let locale = Locale::parse("es-ES").unwrap();
        let mut script =
            Speaker::new(Some(&locale), None, None, &manner).message(&code("1234"), Duration::ZERO);
        script.parts.push(Part::Text("<Dial>&\"".to_owned()));
        let xml = render(&script).unwrap();
        assert!(xml.contains("&lt;Dial&gt;&amp;&quot;") && xml.contains("Polly.Lucia-Neural"));
        script.parts.push(Part::Text("x".repeat(LONGEST)));
        assert!(render(&script).is_err());
    }

    #[test]
    fn a_question_waits_for_a_key_and_holds_no_code() {
        let manner = Manner::default();
        let speaker = Speaker::new(None, None, None, &manner);
        let question = Answer::UntilKey {
            prompts: vec![speaker.question(), speaker.question_again()],
            turn: Turn::Key {
                reading: 1,
                wrong: 0,
            },
            last: speaker.goodbye(),
        };
        let xml = answer(&question, |turn| {
            format!("https://a.example/x{}", turn.query())
        });
        let document = roxmltree::Document::parse(&xml).unwrap();
        let gathers: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name("Gather"))
            .collect();
        assert_eq!(gathers.len(), 2);
        assert_eq!(
            gathers[0].attribute("action"),
            Some("https://a.example/x?reading=1&wrong=0")
        );
        assert!(xml.ends_with("<Hangup/></Response>"));
        assert_eq!(
            answer(&Answer::HangUp, |_| String::new()),
            format!("{HEAD}<Hangup/></Response>")
        );
    }
}
