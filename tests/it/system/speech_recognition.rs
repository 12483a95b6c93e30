//! Whether the code can be understood: espeak-ng speaks the script, and pocketsphinx, a free
//! recogniser, transcribes it. Its model is for American English; the eight English locales use the
//! same words.

use std::fmt::Write as _;
use std::process::Stdio;

use tokio::process::Command;

use crate::harness::Program;

const CODES: usize = 100;
const WORDS: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];
/// The model of Debian's package pocketsphinx-en-us.
const MODEL: &str = "/usr/share/pocketsphinx/model/en-us";
/// The script, with any digits.
const GRAMMAR: &str = "#JSGF V1.0;\ngrammar call;\n\
    <digit> = zero | one | two | three | four | five | six | seven | eight | nine;\n\
    <code> = <digit> <digit> <digit> <digit> <digit> <digit>;\n\
    public <call> = hello your verification code is <code> this code is valid for <digit> \
    more minutes once more your code is <code> once more your code is <code> goodbye;\n";

/// The `n`th code: pseudo-random, and the same in every run.
fn code(n: usize) -> String {
    let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    format!("{:06}", (mixed >> 20) % 1_000_000)
}

#[tokio::test]
async fn a_recogniser_hears_the_digits_that_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut list = String::new();
    for n in 0..CODES {
        let (code, wav) = (code(n), path(&format!("{n}.wav")));
        let args = [
            "speech",
            "preview",
            "--locale",
            "en-US",
            "--code",
            &code,
            "--wav",
            wav.to_str().unwrap(),
        ];
        let said = Program::run(&[], &args).await;
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
        writeln!(list, "{n}").unwrap();
    }
    std::fs::write(path("list"), list).unwrap();
    std::fs::write(path("call.gram"), GRAMMAR).unwrap();
    let mut recogniser = Command::new("pocketsphinx_batch");
    recogniser
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    recogniser.args([
        "-hmm",
        &format!("{MODEL}/en-us"),
        "-dict",
        &format!("{MODEL}/cmudict-en-us.dict"),
        "-jsgf",
        "call.gram",
    ]);
    recogniser.args([
        "-adcin", "yes", "-adchdr", "44", "-cepdir", ".", "-cepext", ".wav", "-ctl", "list",
        "-hyp", "heard",
    ]);
    // Espeak's sample rate, no filters, and wide search beams.
    recogniser.args([
        "-samprate",
        "22050",
        "-nfft",
        "1024",
        "-remove_noise",
        "no",
        "-remove_silence",
        "no",
    ]);
    recogniser.args(["-beam", "1e-100", "-wbeam", "1e-80", "-pbeam", "1e-100"]);
    let ended = recogniser
        .status()
        .await
        .expect("pocketsphinx: apt install pocketsphinx pocketsphinx-en-us, or ./dev test");
    assert!(ended.success());
    let heard = std::fs::read_to_string(path("heard")).unwrap();
    let digits = |line: &str| -> String {
        let place = |word: &str| WORDS.iter().position(|known| *known == word);
        line.split(' ')
            .filter_map(|word| place(word).map(|digit| digit.to_string()))
            .collect()
    };
    let lines: Vec<String> = heard.lines().map(digits).collect();
    assert_eq!(lines.len(), CODES);
    // Six digits, the minutes, and six digits twice more. The last reading must be as complete as
    // the first.
    let right = |which: fn(&str) -> Option<&str>| {
        (0..CODES)
            .filter(|n| which(&lines[*n]) == Some(code(*n).as_str()))
            .count()
    };
    let (first, last) = (
        right(|heard| heard.get(..6)),
        right(|heard| heard.get(13..)),
    );
    eprintln!(
        "of {CODES} codes the recogniser heard {first} at the first reading and {last} at the last"
    );
    assert!(
        first >= 95 && last >= 95,
        "of {CODES} only {first} at the first reading and {last} at the last"
    );
}
