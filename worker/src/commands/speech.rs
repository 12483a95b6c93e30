//! `voice-otp speech`.

mod espeak;

use std::time::Duration;

use anyhow::Context as _;
use voice_otp::settings::policy::Voicemail;
use voice_otp::speech::{Speaker, SpeechStyle, locales};
use voice_otp_schemas::{Locale, OtpCode, PhoneNumber, TenantId};
use voice_otp_twilio::twiml;

use super::CommandError;
use super::database::{load_tenant, open};
use crate::args::{Speech, SpeechPreview};
use crate::config::ArgumentChecker;
use crate::output::print_line;

pub(super) async fn run(command: Speech) -> Result<(), CommandError> {
    match command {
        Speech::Preview(args) => preview(*args).await,
        Speech::Locales => Ok(list_locales()?),
    }
}

fn list_locales() -> anyhow::Result<()> {
    for spoken in locales() {
        let others = spoken.other_voices.join(", ");
        let others = if others.is_empty() {
            others
        } else {
            format!("  or {others}")
        };
        print_line(&format!("{:<10} {}{others}", spoken.locale, spoken.voice))?;
    }
    Ok(())
}

async fn preview(args: SpeechPreview) -> Result<(), CommandError> {
    let mut checker = ArgumentChecker::default();
    let code = checker.parse("--code", &args.code, OtpCode::parse);
    let locale = args
        .locale
        .as_deref()
        .and_then(|tag| checker.parse("--locale", tag, Locale::parse));
    let to = args
        .to
        .as_deref()
        .and_then(|to| checker.parse("--to", to, PhoneNumber::parse));
    let time_to_live = checker.duration(
        "--life",
        &args.time_to_live,
        Duration::ZERO,
        Duration::from_hours(1),
    );
    let tenant = args.tenant.as_deref().map(|tenant| {
        let id = checker.parse("--tenant", tenant, TenantId::parse);
        (
            id,
            checker.keys(&args.keys),
            checker.database(&args.database),
        )
    });
    let (code, time_to_live, tenant) = checker.finish(|| {
        let tenant = match tenant {
            Some((id, keys, url)) => Some((id?, keys?, url?)),
            None => None,
        };
        Some((code?, time_to_live?, tenant))
    })?;
    let settings = match tenant {
        Some((id, keys, url)) => Some(load_tenant(&open(&url).await?, &keys, &id).await?),
        None => None,
    };
    let style = settings
        .as_ref()
        .map_or_else(SpeechStyle::default, |settings| settings.speech.clone());
    let default_locale = settings
        .as_ref()
        .and_then(|settings| settings.default_locale.as_ref());
    let country = to.as_ref().and_then(PhoneNumber::country);
    let speaker = Speaker::new(locale.as_ref(), default_locale, country, &style);
    let script = speaker.message(&code, time_to_live);
    print_line(&format!(
        "{}, {}, at {} % of the voice's own rate\n",
        script.locale, script.voice, script.rate_percent
    ))?;
    print_line(&script.text())?;
    print_line(&format!(
        "\n{}",
        twiml::render(&script).context("render the TwiML")?
    ))?;
    if settings.is_some_and(|settings| settings.voicemail == Voicemail::PressKey) {
        print_line(&format!(
            "\nThe tenant's calls ask for a key first:\n{}",
            speaker.prompt().text()
        ))?;
        let reading = speaker.reading(&code, time_to_live, 1);
        print_line(&format!("After the key:\n{}", reading.text()))?;
    }
    if let Some(file) = &args.wav {
        espeak::write_wav(&script, file)?;
        print_line(&format!("\nwritten to {}", file.display()))?;
    }
    Ok(())
}
