//! What the person hears, and what machines don't: voicemail policies, redials, prices, the log of statuses, previews.

use std::time::Duration;

use serde_json::json;
use voice_otp::policy::{Again, Outcome, Voicemail};
use voice_otp_schemas::price::PriceEvent;
use voice_otp_twilio::signature;

use crate::harness::{AUTH_TOKEN, Program, System, Worker, number, request};

const LIFE: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(40);

async fn system(policy: Voicemail) -> (System, Worker) {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| draft.voicemail = policy)
        .await;
    let worker = system.worker().await;
    (system, worker)
}

#[tokio::test]
async fn a_key_is_asked_for_and_only_who_presses_it_hears_the_code() {
    let (system, _worker) = system(Voicemail::PressKey).await;
    let mut statuses = system.broker.statuses().await;
    // By the numbers' fates: a person, a machine, one who wants it again, another key, no key, one who hangs up.
    let calls = [
        ("person", number(1), "delivered", 1),
        ("machine", "+12025550104".to_owned(), "hung_up", 0),
        ("again", "+12025550107".to_owned(), "delivered", 3),
        ("wrong", "+12025550108".to_owned(), "hung_up", 0),
        ("silent", "+12025550109".to_owned(), "hung_up", 0),
        ("gone", "+12025550105".to_owned(), "hung_up", 0),
    ];
    for (id, to, ..) in &calls {
        system.publish_json(&request(id, to, "493027", LIFE)).await;
    }
    statuses.finals(calls.len(), SOON).await;
    for (id, to, status, readings) in &calls {
        assert_eq!(statuses.words(id).last(), Some(status), "{id}");
        let call = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == *to)
            .unwrap();
        assert_eq!(call.readings_heard, *readings, "{id}: {}", call.transcript);
        assert_eq!(
            call.digits_heard,
            if *readings > 0 { "493027" } else { "" },
            "{id}"
        );
        if *readings == 0 {
            assert!(
                !call.transcript.contains("four"),
                "{id}: {}",
                call.transcript
            );
        }
    }
    assert_eq!(statuses.reason("machine"), "no_key");
    let machine = system
        .simulator
        .calls()
        .into_iter()
        .find(|call| call.to == "+12025550104")
        .unwrap();
    assert!(
        machine.transcript.matches("press one").count() == 3
            && machine.transcript.ends_with("Goodbye."),
        "{}",
        machine.transcript
    );
    assert_eq!(system.simulator.stats().asked_in_vain, 0);
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn a_machine_is_hung_up_on_or_spoken_to_after_its_beep_as_the_tenant_wants() {
    let (system, _worker) = system(Voicemail::HangUp).await;
    system
        .tenant("beep", 50.0, |draft| {
            draft.voicemail = Voicemail::WaitForBeep
        })
        .await;
    let mut statuses = system.broker.statuses().await;
    let of = |tenant: &str, id: &str, to: &str| {
        let mut event = request(id, to, "493027", LIFE);
        event["data"]["tenant_id"] = json!(tenant);
        event
    };
    for event in [
        of("acme", "person", &number(1)),
        of("acme", "machine", "+12025550104"),
        of("beep", "beep-person", &number(2)),
        of("beep", "beep-machine", "+13125550104"),
    ] {
        system.publish_json(&event).await;
    }
    statuses.finals(4, SOON).await;
    for (id, to, status, answered_by, readings) in [
        ("person", number(1), "delivered", "human", 3),
        (
            "machine",
            "+12025550104".to_owned(),
            "voicemail",
            "machine_start",
            0,
        ),
        ("beep-person", number(2), "delivered", "human", 3),
        (
            "beep-machine",
            "+13125550104".to_owned(),
            "delivered",
            "machine_end_beep",
            3,
        ),
    ] {
        let last = &statuses.of(id).last().unwrap().data;
        let heard = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == to)
            .unwrap();
        assert_eq!(
            (last.status.as_str(), last.answered_by.as_deref()),
            (status, Some(answered_by)),
            "{id}: {heard:?}"
        );
        let call = system
            .simulator
            .calls()
            .into_iter()
            .find(|call| call.to == to)
            .unwrap();
        assert_eq!(call.readings_heard, readings, "{id}: {}", call.transcript);
    }
    statuses.assert_sound();
    system.stop().await;
}

#[tokio::test]
async fn a_busy_line_is_called_again_and_its_late_callbacks_change_nothing() {
    let system = System::start(50.0).await;
    system
        .tenant("acme", 50.0, |draft| {
            for outcome in [Outcome::Busy, Outcome::NoAnswer] {
                draft.redial.set(
                    outcome,
                    Again {
                        times: 1,
                        after_s: 5,
                    },
                );
            }
        })
        .await;
    let worker = system.worker().await;
    let mut statuses = system.broker.statuses().await;
    system
        .simulator
        .set_fate(&number(1), voice_otp_twilio::simulator::Fate::Busy, Some(1));
    system
        .publish_json(&request("busy-once", &number(1), "493027", LIFE))
        .await;
    system
        .publish_json(&request("busy-twice", "+12025550101", "493027", LIFE))
        .await;
    statuses.finals(2, SOON).await;
    assert_eq!(
        statuses.words("busy-once"),
        [
            "accepted",
            "placed",
            "deferred",
            "placed",
            "ringing",
            "answered",
            "delivered"
        ]
    );
    assert_eq!(
        statuses.words("busy-twice"),
        ["accepted", "placed", "deferred", "placed", "busy"]
    );
    let last = &statuses.of("busy-twice").last().unwrap().data;
    assert_eq!((last.attempt, last.sip_code), (2, Some(486)));
    assert_eq!(system.calls_to("+12025550101"), 2);
    statuses.assert_sound();
    let metrics = reqwest::get(format!("http://{}/metrics", worker.address))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("voice_otp_stray_calls_total 0")
            && metrics.contains("voice_otp_redials_total 2"),
        "{metrics}"
    );
    system.stop().await;
}

#[tokio::test]
async fn a_call_asks_with_a_signature_and_whoever_else_asks_is_told_nothing() {
    let (system, worker) = system(Voicemail::PressKey).await;
    let mut statuses = system.broker.statuses().await;
    // It rings long enough to ask in its place.
    system
        .publish_json(&request("asked", "+12025550102", "493027", LIFE))
        .await;
    let placed = |seen: &[(String, voice_otp_schemas::status::StatusEvent)]| {
        seen.iter()
            .any(|(_, event)| event.data.status.as_str() == "placed")
    };
    statuses.until("it is placed", SOON, placed).await;
    let call = system.simulator.calls().pop().unwrap();
    let attempt = call
        .callback_path
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    let base = format!("http://{}/twilio/voice/{attempt}", worker.address);
    let first = format!("{base}?policy=press_key");
    let client = reqwest::Client::new();
    let form = |digits: &str| {
        let pairs = [
            ("CallSid", call.sid.as_str()),
            ("CallStatus", "in-progress"),
            ("Digits", digits),
        ];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let ask = async |url: &str, form: &[(String, String)], signature: &str| {
        let answer = client
            .post(url)
            .header("x-twilio-signature", signature)
            .form(form)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let key = format!("{base}?reading=1&wrong=0");
    let good = signature::sign(AUTH_TOKEN, &key, &form("1"));
    for (url, form, signature, status) in [
        (key.clone(), form("1"), "", 403),
        (key.clone(), form("2"), good.as_str(), 403),
        // The signature is for this turn only.
        (
            format!("{base}?reading=2&wrong=0"),
            form("1"),
            good.as_str(),
            403,
        ),
        (first.clone(), form("1"), good.as_str(), 403),
        (
            format!("{base}?policy=speak"),
            form("1"),
            good.as_str(),
            403,
        ),
        (base.clone(), form("1"), good.as_str(), 404),
        (format!("{base}?reading=x"), form("1"), good.as_str(), 404),
        (
            format!(
                "http://{}/twilio/voice/{}",
                worker.address,
                uuid::Uuid::new_v4().simple()
            ),
            form("1"),
            good.as_str(),
            404,
        ),
        (
            format!("http://{}/twilio/voice/guess", worker.address),
            form("1"),
            good.as_str(),
            404,
        ),
    ] {
        let (got, body) = ask(&url, &form, signature).await;
        assert_eq!((got, body.contains("four")), (status, false), "{url}");
    }
    let (status, body) = ask(
        &first,
        &form(""),
        &signature::sign(AUTH_TOKEN, &first, &form("")),
    )
    .await;
    assert_eq!(status, 200);
    assert!(
        body.contains("press one") && !body.contains("four"),
        "{body}"
    );
    let (status, body) = ask(&key, &form("1"), &good).await;
    assert_eq!((status, body.contains("four")), (200, true), "{body}");
    // Another call may not ask for it.
    let mut other = form("1");
    other[0].1 = format!("CA{}", "0".repeat(32));
    let (status, body) = ask(&key, &other, &signature::sign(AUTH_TOKEN, &key, &other)).await;
    assert_eq!((status, body.contains("four")), (200, false), "{body}");
    statuses.finals(1, SOON).await;
    let (status, body) = ask(&key, &form("1"), &good).await;
    assert_eq!(
        (status, body.contains("four"), body.contains("<Hangup/>")),
        (200, false, true),
        "it died with the delivery"
    );
    assert!(!worker.log().contains("493027"));
    system.stop().await;
}

#[tokio::test]
async fn a_policy_that_needs_a_public_url_is_refused_without_one_and_bad_speech_with_its_place() {
    let system = System::start(1.0).await;
    let environment = system.environment();
    let set = async |args: &[&str]| {
        let args: Vec<&str> = ["tenant", "set", "acme"]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let output = Program::run(&environment, &args).await;
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, told) = set(&["--voicemail", "press_key"]).await;
    assert!(code == 2 && told.contains("VOICE_OTP_PUBLIC_URL"), "{told}");
    let (code, told) = set(&[
        "--voicemail",
        "press_key",
        "--public-url",
        "https://otp.example.com",
    ])
    .await;
    assert_eq!(code, 0, "{told}");
    for (args, wanted) in [
        (
            ["--greeting", "de-DE=Hallo {name}"],
            "--greeting: de-DE: character 7",
        ),
        (
            ["--greeting", "de-DE=Von <b>Acme</b>"],
            "--greeting: de-DE: character 5: markup",
        ),
        (["--greeting", "Hallo"], "LOCALE=TEXT"),
        (["--brand", "uk-UA=Acme"], "none of the locales"),
        (
            ["--voice", "de-DE=Polly.Joanna-Neural"],
            "Polly.Vicki-Neural",
        ),
        (["--speech-rate", "10"], "50 to 120"),
        (["--readings", "0"], "1 to 5"),
        (["--digit-pause", "5s"], "200ms"),
        (["--redial", "busy=1/1s"], "5 s to 30 min"),
        (["--redial", "always"], "busy=2/30s"),
        (["--voicemail", "shout"], "speak, hang_up"),
    ] {
        let (code, told) = set(&args).await;
        assert!(code == 2 && told.contains(wanted), "{args:?}: {told}");
    }
    let good = [
        "--brand",
        "Acme",
        "--greeting",
        "de-DE=Servus von {brand}",
        "--voice",
        "de-DE=Polly.Daniel-Neural",
        "--readings",
        "2",
        "--speech-rate",
        "90",
        "--digit-pause",
        "500ms",
        "--redial",
        "busy=2/30s",
        "--redial",
        "no_answer=1/1m",
    ];
    assert_eq!(set(&good).await, (0, String::new()));
    let shown = Program::run(&environment, &["tenant", "show", "acme", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["voicemail"], "press_key");
    assert_eq!(shown["speech"]["greetings"]["de-DE"], "Servus von {brand}");
    assert_eq!(
        shown["redial"]["no_answer"],
        json!({ "times": 1, "after_s": 60 })
    );
    let preview = [
        "speech", "preview", "--code", "493027", "--locale", "de-CH", "--tenant", "acme",
    ];
    let told = String::from_utf8(Program::run(&environment, &preview).await.stdout).unwrap();
    for part in [
        "de-DE, Polly.Daniel-Neural",
        "Servus von Acme",
        "vier neun drei null zwei sieben",
        "<Say",
        "drücken Sie die Eins",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(
        set(&["--greeting", "de-DE=", "--redial", "busy=0"]).await.0,
        0
    );
    let shown = Program::run(&environment, &["tenant", "show", "acme", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert!(
        shown["speech"]["greetings"].get("de-DE").is_none()
            && shown["redial"].get("busy").is_none()
    );
    system.stop().await;
}

#[tokio::test]
async fn what_a_call_cost_is_an_event_of_its_own_and_the_log_can_be_read_from_before() {
    let system = System::start(50.0).await;
    let mut statuses = system.broker.statuses().await;
    let mut prices = system.broker.prices().await;
    let _worker = system.worker().await;
    system
        .publish_json(&request("paid", &number(1), "493027", LIFE))
        .await;
    statuses.finals(1, SOON).await;
    let text = tokio::time::timeout(Duration::from_mins(1), prices.recv())
        .await
        .expect("a price")
        .unwrap();
    let price: PriceEvent = serde_json::from_str(&text).unwrap();
    let call = system.simulator.calls().pop().unwrap();
    assert_eq!(
        (price.data.call_sid.as_str(), price.data.price.as_str()),
        (call.sid.as_str(), "-0.01400")
    );
    assert_eq!(
        (
            price.data.price_unit.as_str(),
            price.data.delivery_id.as_str()
        ),
        ("USD", "paid")
    );
    // Added up for the console, once.
    let client = system.database.pool.get().await.unwrap();
    let spent = async || {
        let rows = client
            .query(
                "select amount, calls from spend where tenant_id = 'acme' and unit = 'USD'",
                &[],
            )
            .await
            .unwrap();
        rows.first()
            .map(|row| (row.get::<_, f64>(0), row.get::<_, i64>(1)))
    };
    let counted = async {
        while spent().await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, counted)
        .await
        .expect("it is counted");
    assert_eq!(spent().await, Some((0.014, 1)));
    assert!(!text.contains("493027") && !text.contains(&number(1)));
    // A dashboard that comes late reads what it missed.
    let mut watch = Program::start(
        &system.environment(),
        &["watch", "--since", "10m", "--tenant", "acme"],
    );
    let mut lines = {
        use tokio::io::AsyncBufReadExt as _;
        tokio::io::BufReader::new(watch.stdout.take().unwrap()).lines()
    };
    let mut told = Vec::new();
    let reading = async {
        while told.len() < 6 {
            told.push(lines.next_line().await.unwrap().expect("it goes on"));
        }
    };
    assert!(
        tokio::time::timeout(SOON, reading).await.is_ok(),
        "{told:#?}"
    );
    for (line, word) in told.iter().zip([
        "accepted",
        "placed",
        "ringing",
        "answered",
        "delivered",
        "price",
    ]) {
        assert!(line.contains(word), "{word} in {line}");
    }
    watch.kill().await.unwrap();
    let output = Program::run(&system.environment(), &["watch", "--since", "soon"]).await;
    assert_eq!(output.status.code(), Some(2));
    system.stop().await;
}
