//! A script as a sound file, by the program espeak-ng: another voice than Twilio's, with the same
//! words and pauses.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};
use voice_otp::speech::{Part, Script};

/// The speed of espeak-ng that corresponds to 100 % of a Twilio voice's own rate.
const WORDS_A_MINUTE: u32 = 160;

pub(super) fn write_wav(script: &Script, file: &Path) -> anyhow::Result<()> {
    let voice = format!("{}+f2", language(&script.locale));
    let rate = (script.rate_percent * WORDS_A_MINUTE / 100).to_string();
    // The text goes by standard input: arguments are visible to other users of the machine.
    let spawned = Command::new("espeak-ng")
        .args(["-m", "-b", "1", "-v", &voice, "-s", &rate, "--stdin", "-w"])
        .arg(file)
        .stdin(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(anyhow!(
                "--wav needs the program espeak-ng: apt install espeak-ng"
            ));
        }
        Err(error) => return Err(error).context("run espeak-ng"),
    };
    if let Some(mut input) = child.stdin.take() {
        input
            .write_all(ssml(script).as_bytes())
            .context("write to espeak-ng")?;
    }
    let status = child.wait().context("wait for espeak-ng")?;
    if !status.success() {
        return Err(anyhow!(
            "espeak-ng failed ({status}): it may have no voice for {voice}"
        ));
    }
    Ok(())
}

fn ssml(script: &Script) -> String {
    let mut ssml = String::from("<speak>");
    for part in &script.parts {
        match part {
            Part::Text(text) => ssml.push_str(&format!("<s>{}</s> ", escape(text))),
            Part::Symbol(word) => ssml.push_str(&format!("{} ", escape(word))),
            Part::Break(length) | Part::Pause(length) => {
                ssml.push_str(&format!(r#"<break time="{}ms"/> "#, length.as_millis()));
            }
        }
    }
    ssml.push_str("</speak>");
    ssml
}

/// The language as espeak-ng names it, where that is not the first part of the locale.
fn language(locale: &str) -> &str {
    match locale {
        "en-US" => "en-us",
        "en-GB" | "en-AU" | "en-IE" | "en-IN" | "en-NZ" | "en-ZA" | "en-GB-WLS" => "en-gb",
        "es-MX" | "es-US" => "es-419",
        "fr-BE" => "fr-be",
        "pt-BR" => "pt-br",
        "vi-VN" => "vi",
        "arb" => "ar",
        // espeak-ng has no Filipino and no Galician; related languages are close enough to judge
        // words and pauses.
        "fil-PH" => "id",
        "gl-ES" => "pt",
        "yue-CN" | "yue-HK" => "yue",
        other => other.split('-').next().unwrap_or("en"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
