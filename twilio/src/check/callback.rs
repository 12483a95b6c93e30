//! Checks that callbacks reach a worker.

use secrecy::ExposeSecret as _;
use voice_otp::settings::VoiceSettings;

use super::finding::{Check, Finding, Verdict};
use crate::client::{Client, PROBE_ANSWER};
use crate::signature;

/// Posts a form to the public URL, signed as Twilio signs. A worker answers with [`PROBE_ANSWER`]
/// if the request reaches it unchanged.
pub(super) async fn check(client: &Client, settings: &VoiceSettings) -> Finding {
    let Some(url) = client.probe_url() else {
        return without_public_url(settings);
    };
    let params = vec![("Tenant".to_owned(), settings.tenant_id.as_str().to_owned())];
    let signature = signature::sign(
        settings.credentials.auth_token.expose_secret(),
        &url,
        &params,
    );
    let sent = client
        .api
        .post_form(&url, &params)
        .header("x-twilio-signature", signature)
        .send()
        .await;
    let fault =
        |code, message: String| Finding::new(Check::Callback, Verdict::Fault, code, message);
    let response = match sent {
        Ok(response) => response,
        Err(error) => {
            let problem = if error.is_timeout() {
                "does not answer before the timeout"
            } else {
                "can't be reached"
            };
            return fault(
                "callback_unreachable",
                format!("the public URL {problem} from here"),
            )
            .with_remedy(
                "check that a worker is running, that the name resolves, that the certificate is \
                 valid, and that the proxy forwards /twilio/",
            );
        }
    };
    let status = response.status().as_u16();
    match (status, response.text().await) {
        (200, Ok(body)) if body == PROBE_ANSWER => Finding::new(
            Check::Callback,
            Verdict::Ok,
            "callback_reaches_a_worker",
            "the public URL reaches a worker, which accepts the signature",
        ),
        (403, _) => fault(
            "callback_refused",
            "the public URL reaches a worker, which rejects the signature".to_owned(),
        )
        .with_remedy(
            "set the same VOICE_OTP_PUBLIC_URL for the workers as here, and check that the proxy \
             does not change the body",
        ),
        _ => fault(
            "callback_goes_elsewhere",
            format!("the public URL answers {status}, which is not a worker's answer"),
        )
        .with_remedy("configure the proxy to forward /twilio/ to the workers, unchanged"),
    }
}

fn without_public_url(settings: &VoiceSettings) -> Finding {
    if settings.voicemail.needs_public_url() {
        return Finding::new(
            Check::Callback,
            Verdict::Fault,
            "voicemail_needs_public_url",
            "there is no public URL, and the tenant's voicemail policy needs one",
        )
        .with_remedy(
            "set VOICE_OTP_PUBLIC_URL here and for the workers, or change the policy: voice-otp \
             tenant set --voicemail speak",
        );
    }
    Finding::new(
        Check::Callback,
        Verdict::Unknown,
        "no_public_url",
        "there is no public URL: the workers poll the calls",
    )
    .with_remedy("set the workers' VOICE_OTP_PUBLIC_URL here to check it")
}
