//! Mistakes that the reader must find, and documents that it must accept.

use super::*;
use crate::transcript::Transcript;

#[track_caller]
fn refused(twiml: &str, message: &str) {
    let error = listen(twiml).expect_err(twiml);
    assert_eq!(error.to_string(), message, "{twiml}");
}

/// Checks the inside of a `Say` with a neural voice.
#[track_caller]
fn refused_inside(inside: &str, message: &str) {
    let twiml = format!(
        r#"<Response><Say voice="Polly.Joanna-Neural" language="en-US">a {inside}</Say></Response>"#
    );
    refused(&twiml, message);
}

#[test]
fn a_document_that_is_no_response_is_refused() {
    refused("Your code is 1", "the TwiML is not well-formed XML");
    refused(
        "<Response><Say>x</Response>",
        "the TwiML is not well-formed XML",
    );
    refused(
        "<!DOCTYPE a [<!ENTITY b 'c'>]><Response/>",
        "the TwiML is not well-formed XML",
    );
    refused(
        "<response/>",
        "the root element is <response>, not <Response>",
    );
    refused(
        "<Response xmlns='urn:x'/>",
        "the root element is <?:Response>, not <Response>",
    );
    assert!(listen("<Response/>").unwrap().is_empty());
}

#[test]
fn elements_and_attributes_are_case_sensitive() {
    refused(
        "<Response><say>x</say></Response>",
        "<say> is not known inside <Response>",
    );
    refused(
        "<Response><Dial>+1</Dial></Response>",
        "<Dial> is not known inside <Response>",
    );
    refused(
        "<Response><Say Voice='man'>x</Say></Response>",
        "<Say> has no attribute Voice",
    );
    refused(
        "<Response><Gather><Hangup/></Gather></Response>",
        "<Hangup> is not known inside <Gather>",
    );
    refused(
        "<Response version='1'/>",
        "<Response> has no attribute version",
    );
    refused(
        "<Response><Hangup reason='x'/></Response>",
        "<Hangup> has no attribute reason",
    );
}

#[test]
fn text_is_accepted_only_where_it_is_spoken() {
    refused(
        "<Response>x<Say>y</Say></Response>",
        "<Response> holds something that does not belong there",
    );
    refused(
        "<Response><Pause>x</Pause></Response>",
        "<Pause> holds something that does not belong there",
    );
    refused("<Response><Say> </Say></Response>", "<Say> is empty");
    refused("<Response><Play/></Response>", "<Play> is empty");
    refused("<Response><Redirect/></Response>", "<Redirect> is empty");
    refused_inside(
        "<break>x</break>",
        "<break> holds something that does not belong there",
    );
}

#[test]
fn pauses_are_whole_seconds() {
    let message = "length of <Pause> is a whole number of seconds, 1 or more";
    for length in ["0", "0.5", "-1", "+1", "", "1s"] {
        refused(
            &format!("<Response><Pause length='{length}'/></Response>"),
            message,
        );
    }
    let spoken = listen("<Response><Pause/><Pause length='2'/></Response>").unwrap();
    let duration: Vec<u64> = spoken
        .iter()
        .map(|utterance| utterance.duration.as_secs())
        .collect();
    assert_eq!(duration, [1, 2]);
}

#[test]
fn breaks_are_at_most_ten_seconds() {
    let message = "time of <break> is a time such as 600ms or 1s, up to 10 s";
    for time in [
        "600", "0.6", "-1s", "11s", "10001ms", "1e1s", "0.5ms", "s", ".5s", "1.s",
    ] {
        refused_inside(&format!("<break time='{time}'/>"), message);
    }
    for (time, millis) in [
        ("600ms", 600),
        ("1s", 1_000),
        ("0.5s", 500),
        ("10s", 10_000),
    ] {
        assert_eq!(
            ssml_of(&format!("x<break time='{time}'/>")).spoken[1].duration,
            Duration::from_millis(millis),
            "{time}"
        );
    }
    refused_inside(
        "<break strength='loud'/>",
        "strength of <break> is none, x-weak, weak, medium, strong or x-strong",
    );
}

#[track_caller]
fn ssml_of(inside: &str) -> Transcript {
    let twiml =
        format!(r#"<Response><Say voice="Polly.Zeina" language="arb">{inside}</Say></Response>"#);
    Transcript::of(&twiml).unwrap()
}

#[test]
fn ssml_is_checked_element_by_element() {
    refused_inside("<speak>x</speak>", "<speak> is not known inside <Say>");
    refused_inside(
        "<prosody speed='slow'>x</prosody>",
        "<prosody> has no attribute speed",
    );
    refused_inside(
        "<prosody rate='10%'>x</prosody>",
        "rate of <prosody> is x-slow, slow, medium, fast, x-fast, or 20% to 200%",
    );
    refused_inside(
        "<say-as>1</say-as>",
        "<say-as> needs the attribute interpret-as",
    );
    refused_inside(
        "<say-as interpret-as='code'>1</say-as>",
        "interpret-as of <say-as> is an interpretation of SSML, such as characters or digits",
    );
    refused_inside(
        "<say-as interpret-as='digits'>1<break/></say-as>",
        "<say-as> holds something that does not belong there",
    );
    refused_inside("<sub>x</sub>", "<sub> needs the attribute alias");
    refused_inside("<lang>x</lang>", "<lang> needs the attribute xml:lang");
    refused_inside(
        "<lang xml:lang='xx'>x</lang>",
        "xml:lang of <lang> is a language that a voice speaks",
    );
    refused_inside("<p><Say>x</Say></p>", "<Say> is not known inside <p>");
}

#[test]
fn a_voice_supports_only_the_ssml_of_its_family() {
    refused_inside(
        "<emphasis>x</emphasis>",
        "the voice Polly.Joanna-Neural does not take SSML's <emphasis>",
    );
    refused(
        "<Response><Say voice='Google.hu-HU-Wavenet-B' language='hu-HU'>\
         <w role='x'>x</w></Say></Response>",
        "the voice Google.hu-HU-Wavenet-B does not take SSML's <w>",
    );
    for voice in ["man", "woman"] {
        refused(
            &format!("<Response><Say voice='{voice}'>x<break/></Say></Response>"),
            &format!("the voice {voice} does not take SSML's <break>"),
        );
    }
    refused(
        "<Response><Say>x<break/></Say></Response>",
        "the voice man does not take SSML's <break>",
    );
    assert_eq!(
        ssml_of("<emphasis level='strong'>x</emphasis>").to_string(),
        "x"
    );
}

#[test]
fn a_voice_must_be_known_and_speak_the_language() {
    refused(
        "<Response><Say voice='Polly.Vicki-Neural' language='en-US'>x</Say></Response>",
        "the voice Polly.Vicki-Neural is not known to speak en-US",
    );
    refused(
        "<Response><Say language='zh-CN'>x</Say></Response>",
        "the voice man is not known to speak zh-CN",
    );
    let long = format!(
        "<Response><Say voice='Polly.Vicki-Neural' language='de-DE'>{}</Say></Response>",
        "x".repeat(3_001)
    );
    refused(&long, "<Say> has more than 3000 characters of text");
}

#[test]
fn ssml_changes_what_is_heard() {
    assert_eq!(
        ssml_of("<say-as interpret-as='characters'>4921</say-as>").digits_heard(),
        "4921"
    );
    assert_eq!(
        ssml_of("<say-as interpret-as='cardinal'>4921</say-as>").digits_heard(),
        ""
    );
    assert_eq!(
        ssml_of("<sub alias='one time password'>OTP</sub>").to_string(),
        "one time password"
    );
    assert_eq!(
        &*ssml_of("<lang xml:lang='de-DE'>eins</lang>").spoken[0].language,
        "de-DE"
    );
    let slow = ssml_of("<prosody rate='slow'>x y z</prosody>").length();
    assert!(slow > ssml_of("x y z").length());
}

#[test]
fn nothing_is_played_after_a_hangup_but_it_is_checked() {
    let heard = Transcript::of("<Response><Say>a</Say><Hangup/><Say>b</Say></Response>").unwrap();
    assert_eq!(heard.to_string(), "a");
    refused(
        "<Response><Hangup/><Nonsense/></Response>",
        "<Nonsense> is not known inside <Response>",
    );
}

#[test]
fn a_loop_repeats_an_element() {
    let heard = Transcript::of("<Response><Say loop='3'>x</Say></Response>").unwrap();
    assert_eq!(heard.to_string(), "x x x");
    let endless = Transcript::of("<Response><Say loop='0'>x</Say></Response>").unwrap();
    assert_eq!(endless.spoken.len(), 1_000);
    refused(
        "<Response><Say loop='-1'>x</Say></Response>",
        "loop of <Say> is a whole number; 0 repeats until the call ends",
    );
}

#[test]
fn a_gather_without_a_key_continues_after_its_timeout() {
    let twiml = "<Response>\
                 <Gather numDigits='1' timeout='3' action='https://example.com/key'>\
                 <Say>Press 1</Say></Gather><Say>Goodbye</Say></Response>";
    assert_eq!(
        Transcript::of(twiml).unwrap().to_string(),
        "Press 1 (3 s) Goodbye"
    );
}

#[test]
fn no_error_repeats_what_would_be_spoken() {
    for twiml in [
        "<Response>code 492183</Response>",
        "<Response><Say>492183<Foo/></Say></Response>",
        "<Response><Say voice='x'>492183</Say></Response>",
        "<Response><Say>492183</Response>",
    ] {
        let error = listen(twiml).unwrap_err();
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(
            !format!("{error} {error:?} {source}").contains("492183"),
            "{twiml}"
        );
    }
}
