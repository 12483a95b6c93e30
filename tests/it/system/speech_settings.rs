//! Speech and voicemail settings on the command line, and the speech preview.

use serde_json::json;

use crate::harness::{Program, System};

#[tokio::test]
async fn a_policy_that_needs_a_public_url_is_refused_without_one_and_invalid_speech_is_located() {
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
    let (code, stderr) = set(&["--voicemail", "press_key"]).await;
    assert!(
        code == 2 && stderr.contains("VOICE_OTP_PUBLIC_URL"),
        "{stderr}"
    );
    let (code, stderr) = set(&[
        "--voicemail",
        "press_key",
        "--public-url",
        "https://otp.example.com",
    ])
    .await;
    assert_eq!(code, 0, "{stderr}");
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
        (["--brand", "uk-UA=Acme"], "not a supported locale"),
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
        let (code, stderr) = set(&args).await;
        assert!(code == 2 && stderr.contains(wanted), "{args:?}: {stderr}");
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
    let arguments = [
        "speech", "preview", "--code", "493027", "--locale", "de-CH", "--tenant", "acme",
    ];
    let preview = String::from_utf8(Program::run(&environment, &arguments).await.stdout).unwrap();
    for part in [
        "de-DE, Polly.Daniel-Neural",
        "Servus von Acme",
        "vier neun drei null zwei sieben",
        "<Say",
        "drücken Sie die Eins",
    ] {
        assert!(preview.contains(part), "{part} in {preview}");
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
