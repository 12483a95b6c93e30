//! Create requests that must be refused, with Twilio's codes.

use super::*;

const TO: &str = "+14155550199";
const FROM: &str = "+14155550100";
const TWIML: &str = "<Response><Say>x</Say></Response>";

/// Reads a valid request with some parameters set, added or (with an empty list) removed.
fn read(changes: &[(&str, &[&str])]) -> Result<CallParameters, ApiError> {
    let mut pairs: Vec<(&str, &str)> = vec![("To", TO), ("From", FROM), ("Twiml", TWIML)];
    for (name, values) in changes {
        pairs.retain(|(kept, _)| kept != name);
        pairs.extend(values.iter().map(|value| (*name, *value)));
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    let mut account = Account::new("AC00000000000000000000000000000001", "token");
    account.numbers = vec![FROM.to_owned(), "+15005550001".to_owned()];
    CallParameters::parse(&Params::of_query(Some(&query.finish())), &account)
}

#[track_caller]
fn refused(changes: &[(&str, &[&str])], code: Option<u32>) {
    let error = read(changes).expect_err("an error");
    assert_eq!(
        (error.status.as_u16(), error.code),
        (400, code),
        "{changes:?}: {}",
        error.message
    );
}

#[test]
fn a_plain_request_has_twilios_defaults() {
    let parameters = read(&[]).unwrap();
    assert_eq!(
        (parameters.to.as_str(), parameters.from.as_str()),
        (TO, FROM)
    );
    assert_eq!(parameters.timeout, Duration::from_mins(1));
    assert_eq!(
        (
            parameters.time_limit,
            parameters.callback,
            parameters.detection
        ),
        (None, None, None)
    );
    assert!(parameters.speech_length > Duration::ZERO);
}

#[test]
fn numbers_are_checked_with_twilios_codes() {
    refused(&[("To", &[])], Some(21201));
    refused(&[("To", &[""])], Some(21201));
    refused(&[("From", &[])], Some(21213));
    refused(&[("To", &["14155550199"])], Some(21211));
    refused(&[("To", &[FROM])], Some(21211));
    refused(&[("From", &["anonymous"])], Some(21212));
    refused(&[("From", &["+14155550111"])], Some(21210));
    refused(&[("To", &[TO, TO])], None);
}

#[test]
fn the_magic_numbers_of_the_test_credentials_are_refused() {
    refused(&[("From", &["+15005550001"])], Some(21212));
    for (to, code) in [("1", 21217), ("2", 21214), ("3", 21215), ("4", 21216)] {
        refused(&[("To", &[&format!("+1500555000{to}")])], Some(code));
    }
}

#[test]
fn exactly_one_of_inline_twiml_and_a_url_is_accepted() {
    refused(&[("Twiml", &[])], Some(21205));
    let parameters = read(&[("Twiml", &[]), ("Url", &["https://example.com/say#rc=3"])]).unwrap();
    assert_eq!(parameters.twiml_url.unwrap().overrides.retries, 3);
    refused(
        &[
            ("Twiml", &[]),
            ("Url", &["https://under_score.example.com/"]),
        ],
        Some(21205),
    );
    refused(
        &[
            ("Twiml", &[]),
            ("Url", &["https://example.com/"]),
            ("Method", &["GET"]),
        ],
        None,
    );
    refused(&[("Url", &["https://example.com/"])], Some(32019));
    refused(&[("Twiml", &[&"x".repeat(4_001)])], Some(32018));
    refused(&[("Twiml", &["<Response><Say>x</Response>"])], Some(12100));
    refused(
        &[("Twiml", &["<Response><say>x</say></Response>"])],
        Some(12200),
    );
    refused(
        &[("Twiml", &["<Response><Say voice='x'>x</Say></Response>"])],
        Some(13511),
    );
}

#[test]
fn a_parameter_that_twilio_does_not_know_is_refused() {
    refused(&[("StatusCallbackEvents", &["completed"])], Some(20001));
    refused(&[("to", &[TO])], Some(20001));
    refused(&[("ApplicationSid", &["AP1"])], None);
    refused(&[("Record", &["true"])], None);
    assert!(
        read(&[
            ("Record", &["false"]),
            ("CallReason", &["code"]),
            ("Trim", &["do-not-trim"])
        ])
        .is_ok()
    );
}

#[test]
fn time_limits_are_kept_within_bounds() {
    refused(&[("Timeout", &["0"])], Some(21208));
    refused(&[("Timeout", &["601"])], Some(21208));
    refused(&[("TimeLimit", &["0"])], None);
    let parameters = read(&[("Timeout", &["15"]), ("TimeLimit", &["60"])]).unwrap();
    assert_eq!(parameters.timeout, Duration::from_secs(15));
    assert_eq!(parameters.time_limit, Some(Duration::from_mins(1)));
}

#[test]
fn a_callback_needs_an_absolute_url_without_underscores() {
    for url in [
        "/calls",
        "example.com/calls",
        "ftp://example.com/",
        "https://my_host/calls",
        "https://example.com/#rc=9",
        "",
    ] {
        refused(&[("StatusCallback", &[url])], Some(21205));
    }
    refused(
        &[
            ("StatusCallback", &["https://example.com/"]),
            ("StatusCallbackMethod", &["PUT"]),
        ],
        Some(21209),
    );
    refused(
        &[
            ("StatusCallback", &["https://example.com/"]),
            ("StatusCallbackMethod", &["GET"]),
        ],
        None,
    );
    refused(&[("StatusCallbackEvent", &["busy"])], Some(21626));
    refused(
        &[("StatusCallbackEvent", &["initiated ringing"])],
        Some(21626),
    );
}

#[test]
fn a_callback_gets_only_the_end_unless_it_names_events() {
    let url: &[&str] = &["http://127.0.0.1:9/calls?a_b=1#rc=3&rp=all"];
    let callback = read(&[("StatusCallback", url)]).unwrap().callback.unwrap();
    assert_eq!(
        (callback.events, callback.webhook.overrides.retries),
        (vec![ProgressEvent::Completed], 3)
    );
    let all: &[&str] = &["initiated", "ringing", "answered", "completed"];
    let callback = read(&[("StatusCallback", url), ("StatusCallbackEvent", all)])
        .unwrap()
        .callback
        .unwrap();
    assert_eq!(
        callback.events,
        [
            ProgressEvent::Initiated,
            ProgressEvent::Ringing,
            ProgressEvent::Answered,
            ProgressEvent::Completed
        ]
    );
}

#[test]
fn an_extension_is_dialled_and_turns_detection_off() {
    refused(&[("SendDigits", &[""])], Some(21206));
    refused(&[("SendDigits", &["12x"])], Some(21206));
    refused(&[("SendDigits", &[&"1".repeat(33)])], Some(21206));
    let parameters = read(&[
        ("SendDigits", &["wW12#"]),
        ("MachineDetection", &["Enable"]),
    ])
    .unwrap();
    assert_eq!(parameters.extension_time, Duration::from_millis(2_100));
    assert_eq!(parameters.detection, None);
}

#[test]
fn detection_is_enabled_or_waits_for_the_end_of_the_greeting() {
    refused(&[("MachineDetection", &["enable"])], Some(21234));
    refused(
        &[
            ("MachineDetection", &["Enable"]),
            ("MachineDetectionTimeout", &["60"]),
        ],
        None,
    );
    refused(
        &[("MachineDetection", &["Enable"]), ("AsyncAmd", &["yes"])],
        None,
    );
    let parameters = read(&[
        ("MachineDetection", &["DetectMessageEnd"]),
        ("AsyncAmd", &["true"]),
    ])
    .unwrap();
    assert_eq!(
        parameters.detection,
        Some(Detection {
            message_end: true,
            in_background: true,
            callback: None
        })
    );
}
