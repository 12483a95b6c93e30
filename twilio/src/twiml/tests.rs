//! Snapshots of the standard scripts' `TwiML`, and tests of its limits. The simulator's tests check
//! that Twilio would accept the `TwiML` of every locale.

use std::time::Duration;

use voice_otp::speech::{Speaker, SpeechStyle};
use voice_otp_schemas::{Locale, OtpCode};

use super::*;

/// The locales of the snapshots: the default, an ordinal language, a right-to-left script, and a
/// script without spaces.
const LOCALES: [&str; 4] = ["en-US", "de-DE", "ar-AE", "ja-JP"];

const TIME_TO_LIVE: Duration = Duration::from_mins(5);

fn code(text: &str) -> OtpCode {
    OtpCode::parse(text).unwrap()
}

/// Renders something for every locale of the snapshots.
fn for_each_locale(render: impl Fn(&Speaker<'_>) -> String) -> String {
    let style = SpeechStyle::default();
    let rendered = LOCALES.map(|tag| {
        let locale = Locale::parse(tag).unwrap();
        let speaker = Speaker::new(Some(&locale), None, None, &style);
        format!("{tag}\n{}\n", in_lines(&render(&speaker)))
    });
    rendered.join("\n")
}

/// Breaks `TwiML` into lines at its elements, for legible snapshots.
fn in_lines(xml: &str) -> String {
    let mut lines = xml.to_owned();
    for element in [
        "<Response>",
        "<Gather",
        "<Say",
        "<Pause",
        "<Hangup",
        "</Gather>",
        "</Response>",
    ] {
        lines = lines.replace(element, &format!("\n{element}"));
    }
    lines
}

fn action_url(step: CallStep) -> String {
    format!("https://otp.example.com/voice{}", step.to_query())
}

#[test]
fn the_inline_twiml_of_a_message() {
    let twiml =
        for_each_locale(|speaker| render(&speaker.message(&code("493027"), TIME_TO_LIVE)).unwrap());
    insta::assert_snapshot!(twiml);
}

#[test]
fn the_instructions_under_the_policies_that_read_the_code_at_once() {
    let twiml = for_each_locale(|speaker| {
        let message = speaker.message(&code("A7B9"), TIME_TO_LIVE);
        render_instructions(&CallInstructions::Say(message), action_url)
    });
    insta::assert_snapshot!(twiml);
}

#[test]
fn the_prompts_under_the_policy_that_waits_for_a_key() {
    let twiml = for_each_locale(|speaker| {
        let instructions = CallInstructions::Gather {
            prompts: vec![speaker.prompt(), speaker.prompt_again()],
            step: CallStep::KeyPressed {
                reading: 1,
                wrong: 0,
            },
            last: speaker.goodbye(),
        };
        render_instructions(&instructions, action_url)
    });
    insta::assert_snapshot!(twiml);
}

#[test]
fn a_reading_after_a_key_offers_another_one() {
    let twiml = for_each_locale(|speaker| {
        let instructions = CallInstructions::Gather {
            prompts: vec![speaker.reading(&code("493027"), TIME_TO_LIVE, 1)],
            step: CallStep::KeyPressed {
                reading: 2,
                wrong: 0,
            },
            last: speaker.goodbye(),
        };
        render_instructions(&instructions, action_url)
    });
    insta::assert_snapshot!(twiml);
}

#[test]
fn a_goodbye_is_one_sentence() {
    let twiml = for_each_locale(|speaker| {
        render_instructions(&CallInstructions::Say(speaker.goodbye()), action_url)
    });
    insta::assert_snapshot!(twiml);
}

#[test]
fn a_style_changes_rate_pauses_and_repetitions() {
    let style = SpeechStyle {
        rate_percent: 70,
        pause_ms: 900,
        readings: 3,
        ..SpeechStyle::default()
    };
    let script =
        Speaker::new(None, None, None, &style).message(&code("4930"), Duration::from_mins(1));
    let twiml = in_lines(&render(&script).unwrap());
    insta::assert_snapshot!(twiml);
}

#[test]
fn markup_in_a_phrase_is_escaped_and_a_script_that_is_too_long_is_refused() {
    let style = SpeechStyle::default();
    let locale = Locale::parse("es-ES").unwrap();
    let mut script =
        Speaker::new(Some(&locale), None, None, &style).message(&code("1234"), Duration::ZERO);
    script.parts.push(Part::Text("<Dial>&\"".to_owned()));
    let xml = render(&script).unwrap();
    assert!(xml.contains("&lt;Dial&gt;&amp;&quot;") && xml.contains("Polly.Lucia-Neural"));
    script.parts.push(Part::Text("x".repeat(MAX_CHARS)));
    assert!(render(&script).is_err());
}

#[test]
fn a_prompt_waits_for_a_key_and_contains_no_code() {
    let style = SpeechStyle::default();
    let speaker = Speaker::new(None, None, None, &style);
    let prompts = CallInstructions::Gather {
        prompts: vec![speaker.prompt(), speaker.prompt_again()],
        step: CallStep::KeyPressed {
            reading: 1,
            wrong: 0,
        },
        last: speaker.goodbye(),
    };
    let xml = render_instructions(&prompts, action_url);
    assert_eq!(xml.matches("<Gather ").count(), 2);
    let action = r#"action="https://otp.example.com/voice?reading=1&amp;wrong=0""#;
    assert_eq!(xml.matches(action).count(), 2);
    assert!(xml.ends_with("<Hangup/></Response>"));
    assert_eq!(
        render_instructions(&CallInstructions::HangUp, action_url),
        format!("{HEAD}<Hangup/></Response>")
    );
}
