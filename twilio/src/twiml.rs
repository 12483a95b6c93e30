//! Renders scripts and instructions as `TwiML` (<https://www.twilio.com/docs/voice/twiml>).

use voice_otp::call::answer::{CallInstructions, CallStep};
use voice_otp::speech::{Part, Script};

/// How many characters Twilio accepts in the parameter `Twiml` (error 32018).
pub const MAX_CHARS: usize = 4_000;

/// A script makes more `TwiML` than Twilio accepts. Holds how many characters it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the TwiML has {0} characters, more than the {MAX_CHARS} that Twilio accepts")]
pub struct TooLong(pub usize);

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#;

/// How long a call waits for a key after each prompt, in seconds.
const KEY_TIMEOUT_S: u32 = 5;

/// Renders a script as inline `TwiML`. The call ends after it.
///
/// # Errors
/// [`TooLong`]. No script of voice-otp's comes near the limit.
pub fn render(script: &Script) -> Result<String, TooLong> {
    let mut xml = String::from(HEAD);
    push_script(&mut xml, script);
    xml.push_str("</Response>");
    let length = xml.chars().count();
    if length > MAX_CHARS {
        Err(TooLong(length))
    } else {
        Ok(xml)
    }
}

/// Renders the instructions for a call that requests them. `action_url` makes the URL of the next
/// request.
pub fn render_instructions(
    instructions: &CallInstructions,
    action_url: impl Fn(CallStep) -> String,
) -> String {
    let mut xml = String::from(HEAD);
    match instructions {
        CallInstructions::Say(script) => push_script(&mut xml, script),
        CallInstructions::Gather {
            prompts,
            step,
            last,
        } => {
            let action = escape(&action_url(*step));
            for prompt in prompts {
                xml.push_str(&format!(
                    r#"<Gather input="dtmf" numDigits="1" timeout="{KEY_TIMEOUT_S}" "#
                ));
                xml.push_str(&format!(r#"action="{action}" method="POST">"#));
                push_script(&mut xml, prompt);
                xml.push_str("</Gather>");
            }
            push_script(&mut xml, last);
        }
        CallInstructions::HangUp => {}
    }
    xml.push_str("<Hangup/></Response>");
    xml
}

/// Adds a script: a `Say` for each run of parts between two `Pause`s.
fn push_script(xml: &mut String, script: &Script) {
    let mut in_say = false;
    for part in &script.parts {
        let pause = matches!(part, Part::Pause(_));
        if pause && in_say {
            xml.push_str("</prosody></Say>");
        } else if !pause && !in_say {
            // Of prosody's attributes, all neural voices support the rate, and not all the others
            // (<https://www.twilio.com/docs/voice/twiml/say/text-speech#ssml>).
            let (language, voice, rate) = (
                escape(&script.locale),
                escape(&script.voice),
                script.rate_percent,
            );
            xml.push_str(&format!(
                r#"<Say language="{language}" voice="{voice}"><prosody rate="{rate}%">"#
            ));
        }
        if matches!(part, Part::Text(_)) && in_say {
            xml.push(' ');
        }
        in_say = !pause;
        match part {
            Part::Text(text) | Part::Symbol(text) => xml.push_str(&escape(text)),
            Part::Break(length) => {
                xml.push_str(&format!(r#"<break time="{}ms"/>"#, length.as_millis()));
            }
            Part::Pause(length) => {
                xml.push_str(&format!(r#"<Pause length="{}"/>"#, length.as_secs().max(1)));
            }
        }
    }
    if in_say {
        xml.push_str("</prosody></Say>");
    }
}

/// Escapes text for element content and for attributes in double quotes.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
