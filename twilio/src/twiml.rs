//! What is said in a call, as `TwiML`.

use voice_otp::speech::{Part, Script};

/// The longest `Twiml` parameter that Twilio takes, in characters (error 32018).
pub const LONGEST: usize = 4_000;

/// A script is too long to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the TwiML would have {0} characters, Twilio takes 4000")]
pub struct TooLong(pub usize);

/// Renders a script. The voice goes with the language: a wrong pair makes a silent call at Twilio.
///
/// # Errors
/// [`TooLong`], which no script of ours comes near.
pub fn render(script: &Script) -> Result<String, TooLong> {
    let voice = voice(&script.locale);
    let mut xml = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#);
    let mut saying = false;
    for part in &script.parts {
        let pause = matches!(part, Part::Pause(_));
        if pause && saying {
            xml.push_str("</prosody></Say>");
        } else if !pause && !saying {
            let attribute = voice.map(|voice| format!(r#" voice="{voice}""#)).unwrap_or_default();
            // Neural voices take a prosody's rate, and nothing else of it for sure.
            let rate = script.rate_percent;
            let language = escape(&script.locale);
            xml.push_str(&format!(r#"<Say language="{language}"{attribute}><prosody rate="{rate}%">"#));
        }
        if matches!(part, Part::Text(_)) && saying {
            xml.push(' ');
        }
        saying = !pause;
        match part {
            Part::Text(text) => xml.push_str(&escape(text)),
            Part::Symbol(symbol) => xml.push(*symbol),
            Part::Break(length) => xml.push_str(&format!(r#"<break time="{}ms"/>"#, length.as_millis())),
            Part::Pause(length) => xml.push_str(&format!(r#"<Pause length="{}"/>"#, length.as_secs().max(1))),
        }
    }
    if saying {
        xml.push_str("</prosody></Say>");
    }
    xml.push_str("</Response>");
    let length = xml.chars().count();
    if length > LONGEST { Err(TooLong(length)) } else { Ok(xml) }
}

/// The default voice of a language, in any case of its tag.
pub(crate) fn voice(language: &str) -> Option<&'static str> {
    crate::VOICES
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .find(|(tag, _)| tag.eq_ignore_ascii_case(language))
        .and_then(|(_, rest)| rest.split('\t').next())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use voice_otp::speech::script;
    use voice_otp_schemas::{Locale, OtpCode};

    #[test]
    fn digits_come_one_at_a_time_with_a_pause_after_each_and_the_whole_is_repeated() {
        let script = script(&OtpCode::parse("4930278561").unwrap(), None, None, None);
        let xml = render(&script).unwrap();
        let pause = r#"<break time="600ms"/>"#;
        let reading: String = "4930278561".chars().map(|digit| format!("{pause}{digit}")).collect::<String>() + pause;
        assert_eq!(xml.matches(&reading).count(), 3, "{xml}");
        assert!(xml.contains(r#"<Say language="en-US" voice="Polly.Joanna-Neural">"#));
        assert!(xml.len() < LONGEST && roxmltree::Document::parse(&xml).is_ok());
    }

    #[test]
    fn markup_in_a_phrase_is_escaped_and_the_longest_is_refused() {
        let locale = Locale::parse("es-ES").unwrap();
        let mut script = script(&OtpCode::parse("1234").unwrap(), Some(&locale), None, None);
        script.parts.push(Part::Text("<Dial>&\"".to_owned()));
        let xml = render(&script).unwrap();
        assert!(xml.contains("&lt;Dial&gt;&amp;&quot;") && xml.contains("Polly.Lucia-Neural"));
        script.parts.push(Part::Text("x".repeat(LONGEST)));
        assert!(render(&script).is_err());
    }
}
