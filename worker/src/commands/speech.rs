//! `voice-otp speech`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow};
use voice_otp::speech::{Manner, Part, Script, Speaker, locales};
use voice_otp_schemas::{Locale, OtpCode, PhoneNumber, TenantId};
use voice_otp_store::settings;
use voice_otp_twilio::twiml;

use crate::cli::{Speech, SpeechPreview};
use crate::config::Checks;
use crate::telemetry::say;
use crate::verb::{Failed, tenant};

pub(crate) async fn run(verb: Speech) -> Result<(), Failed> {
    match verb {
        Speech::Preview(args) => preview(*args).await,
        Speech::Locales => {
            for spoken in locales() {
                let others = spoken.other_voices.join(", ");
                let others = if others.is_empty() {
                    others
                } else {
                    format!("  or {others}")
                };
                say(&format!("{:<10} {}{others}", spoken.locale, spoken.voice))?;
            }
            Ok(())
        }
    }
}

async fn preview(args: SpeechPreview) -> Result<(), Failed> {
    let mut checks = Checks::default();
    let code = OtpCode::parse(&args.code)
        .map_err(|error| checks.wrong(format!("--code: {error}")))
        .ok();
    let locale = args.locale.as_deref().and_then(|tag| {
        Locale::parse(tag)
            .map_err(|error| checks.wrong(format!("--locale: {error}")))
            .ok()
    });
    let to = args.to.as_deref().and_then(|to| {
        PhoneNumber::parse(to)
            .map_err(|error| checks.wrong(format!("--to: {error}")))
            .ok()
    });
    let minute = std::time::Duration::from_mins(1);
    let life = checks.duration("--life", &args.life, std::time::Duration::ZERO, minute * 60);
    let of = match &args.tenant {
        None => None,
        Some(tenant) => {
            let id = TenantId::parse(tenant)
                .map_err(|error| checks.wrong(format!("--tenant: {error}")))
                .ok();
            id.zip(checks.keys(&args.sealing))
                .zip(checks.database(&args.database))
        }
    };
    let (code, life) = checks.done(code.zip(life))?;
    let settings = match of {
        None => None,
        Some(((id, keys), url)) => {
            let pool = tenant::open(Checks::default(), Some(url)).await?;
            let found = settings::load_one(&pool, &keys, &id)
                .await
                .context("read the settings")?;
            Some(found.ok_or_else(|| anyhow!("there is no tenant {id}"))?)
        }
    };
    let manner = settings
        .as_ref()
        .map_or_else(Manner::default, |settings| settings.manner.clone());
    let tenants = settings
        .as_ref()
        .and_then(|settings| settings.default_locale.as_ref());
    let country = to.as_ref().and_then(PhoneNumber::country);
    let speaker = Speaker::new(locale.as_ref(), tenants, country, &manner);
    let script = speaker.message(&code, life);
    say(&format!(
        "{}, {}, at {} % of its pace\n",
        script.locale, script.voice, script.rate_percent
    ))?;
    say(&script.text())?;
    say(&format!(
        "\n{}",
        twiml::render(&script).context("render it")?
    ))?;
    if settings.is_some_and(|settings| settings.voicemail == voice_otp::policy::Voicemail::PressKey)
    {
        say(&format!(
            "\nThe tenant's calls ask for a key first:\n{}",
            speaker.question().text()
        ))?;
        say(&format!(
            "and then:\n{}",
            speaker.reading(&code, life, 1).text()
        ))?;
    }
    if let Some(file) = &args.wav {
        render(&script, file)?;
        say(&format!("\nwritten to {}", file.display()))?;
    }
    Ok(())
}

/// Has espeak-ng say it: by another voice than Twilio's, but the same words and pauses.
fn render(script: &Script, file: &Path) -> anyhow::Result<()> {
    let voice = format!("{}+f2", voice(&script.locale));
    let rate = script.rate_percent * ESPEAK_WORDS_A_MINUTE / 100;
    let mut ssml = String::from("<speak>");
    for part in &script.parts {
        match part {
            Part::Text(text) => ssml.push_str(&format!("<s>{}</s> ", escaped(text))),
            Part::Symbol(word) => ssml.push_str(&format!("{} ", escaped(word))),
            Part::Break(length) | Part::Pause(length) => {
                ssml.push_str(&format!(r#"<break time="{}ms"/> "#, length.as_millis()));
            }
        }
    }
    ssml.push_str("</speak>");
    let mut espeak = Command::new("espeak-ng");
    // The text by standard input: other programs can read arguments.
    espeak
        .args([
            "-m",
            "-b",
            "1",
            "-v",
            &voice,
            "-s",
            &rate.to_string(),
            "--stdin",
            "-w",
        ])
        .arg(file);
    espeak.stdin(std::process::Stdio::piped());
    let mut child = match espeak.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(anyhow!(
                "--wav needs the program espeak-ng: apt install espeak-ng"
            ));
        }
        Err(error) => return Err(error).context("run espeak-ng"),
    };
    if let Some(mut input) = child.stdin.take() {
        std::io::Write::write_all(&mut input, ssml.as_bytes())
            .context("tell espeak-ng what to say")?;
    }
    let status = child.wait().context("wait for espeak-ng")?;
    if !status.success() {
        return Err(anyhow!(
            "espeak-ng can't say it ({status}): perhaps it has no voice for {voice}"
        ));
    }
    Ok(())
}

/// How fast espeak-ng speaks, where our voices speak at their own pace.
const ESPEAK_WORDS_A_MINUTE: u32 = 160;

/// Espeak's name of a language, where it isn't the first part of ours.
fn voice(locale: &str) -> &str {
    match locale {
        "en-US" => "en-us",
        "en-GB" | "en-AU" | "en-IE" | "en-IN" | "en-NZ" | "en-ZA" | "en-GB-WLS" => "en-gb",
        "es-MX" | "es-US" => "es-419",
        "fr-BE" => "fr-be",
        "pt-BR" => "pt-br",
        "vi-VN" => "vi",
        "arb" => "ar",
        // Espeak has no Filipino and no Galician; their neighbours read them well enough to judge words and pauses by.
        "fil-PH" => "id",
        "gl-ES" => "pt",
        "yue-CN" | "yue-HK" => "yue",
        other => other.split('-').next().unwrap_or("en"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
