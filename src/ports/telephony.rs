//! Telephony: placing calls at Twilio, and asking about them.

use std::future::Future;
use std::time::Duration;

use voice_otp_schemas::{PhoneNumber, Timestamp};

use crate::account::CallSid;
use crate::call::Call;
use crate::call::failure::CallFailure;
use crate::delivery::AttemptId;
use crate::settings::VoiceSettings;
use crate::settings::policy::Voicemail;
use crate::speech::Script;

/// Where a call gets its instructions (TwiML) from when it is answered.
#[derive(Debug)]
pub enum Instructions<'a> {
    /// They are part of the request, and are played to whatever answers.
    Inline(&'a Script),
    /// Twilio requests them from the workers, under this policy: see
    /// [`crate::engine::Engine::answer`].
    OnRequest(Voicemail),
}

/// A call to place.
#[derive(Debug)]
pub struct CallRequest<'a> {
    /// The number to call.
    pub to: &'a PhoneNumber,
    /// What the call plays.
    pub instructions: Instructions<'a>,
    /// How long it may ring.
    pub ring_timeout: Duration,
    /// How long it may last once answered.
    pub limit: Duration,
    /// Digits to dial once answered.
    pub extension: Option<&'a str>,
    /// The attempt, which the callback URLs carry.
    pub attempt_id: AttemptId,
}

/// Places calls and answers questions about them.
pub trait Telephony: Send + Sync + 'static {
    /// Whether Twilio can reach the workers, so that calls report their progress and polling can
    /// wait.
    fn has_callbacks(&self) -> bool;

    /// Places a call.
    fn place(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;

    /// Reads a call.
    fn fetch(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;

    /// Reads calls that were placed since a time, in as few requests as possible. Calls that aren't
    /// found are left out.
    fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> impl Future<Output = Result<Vec<Call>, CallFailure>> + Send;

    /// Lists the latest calls from the tenant's From number to a number.
    fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> impl Future<Output = Result<Vec<Call>, CallFailure>> + Send;

    /// Ends a call: an unanswered one always, an answered one only if `even_answered`.
    fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> impl Future<Output = Result<Call, CallFailure>> + Send;
}
