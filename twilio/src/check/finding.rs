//! The result of a check.

use serde::Serialize;
use voice_otp::call::failure::{CallFailure, Class, Fault};

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// How serious the result is.
    pub verdict: Verdict,
    /// A constant word for the result, for programs.
    pub code: &'static str,
    /// The result, in a sentence. Never a secret.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The auth token, and the API key if there is one.
    Credentials,
    /// Whether the account is active.
    Account,
    /// Whether the account can call from the From number.
    From,
    /// Whether the account may call the allowed countries.
    Countries,
    /// Whether the balance is sufficient.
    Balance,
    /// Whether Twilio's callbacks reach a worker.
    Callback,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The check passed.
    Ok,
    /// Calls can be placed, and something needs attention.
    Warning,
    /// Calls fail, or their outcome stays unknown.
    Fault,
    /// The check could not be made.
    Unknown,
}

impl Finding {
    pub(super) fn new(
        check: Check,
        verdict: Verdict,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict,
            code,
            message: message.into(),
            remedy: None,
        }
    }

    /// A check that could not be made, for a reason that may not lie in the settings.
    pub(super) fn unknown(check: Check, failure: &CallFailure) -> Self {
        Self::new(
            check,
            Verdict::Unknown,
            "not_checked",
            format!("could not be checked: {failure}"),
        )
        .with_remedy(
            "check again later; if this persists, give the API key the permission to read this",
        )
    }

    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// Whether calls may fail: the finding is a fault, or an essential check could not be made.
    pub fn is_bad(&self) -> bool {
        let essential = matches!(
            self.check,
            Check::Credentials | Check::Account | Check::From | Check::Countries
        );
        self.verdict == Verdict::Fault || (essential && self.verdict == Verdict::Unknown)
    }
}

/// Whether Twilio rejected the credentials.
pub(super) fn are_credentials_rejected(failure: &CallFailure) -> bool {
    failure.class == Class::Permanent(Fault::Credentials)
}
