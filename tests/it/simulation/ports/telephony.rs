//! Twilio, as one worker reaches it.

use std::time::Duration;

use voice_otp::account::CallSid;
use voice_otp::call::Call;
use voice_otp::call::failure::{CallFailure, Class};
use voice_otp::ports::{CallRequest, Telephony};
use voice_otp::settings::VoiceSettings;
use voice_otp_schemas::{PhoneNumber, Timestamp};

use crate::memory::MemoryTelephony;
use crate::simulation::bug::Bug;
use crate::simulation::fault_injector::{Failed, FaultInjector};

#[derive(Clone)]
pub(in crate::simulation) struct SimTelephony {
    pub(in crate::simulation) telephony: MemoryTelephony,
    pub(in crate::simulation) faults: FaultInjector,
    /// How long the client waits for the answer to a POST.
    pub(in crate::simulation) post_timeout: Duration,
    pub(in crate::simulation) bug: Option<Bug>,
}

impl SimTelephony {
    async fn pass<T, F>(&self, work: impl FnOnce(MemoryTelephony) -> F) -> Result<T, CallFailure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallFailure>> + Send + 'static,
    {
        match self.faults.perform(work(self.telephony.clone())).await {
            Ok(answer) => answer,
            Err(Failed::Unreachable) => Err(failure(Class::Transient)),
            Err(Failed::NoAnswer) => Err(failure(Class::Ambiguous)),
        }
    }

    /// Sends a POST. `Err` says why it has no answer.
    async fn post(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Result<Call, CallFailure>, Failed> {
        // No pause is injected here, so the POST follows the check of the lease at once. The small
        // gap that exists in production is documented in docs/limits.md.
        let nth = self.faults.before(false).await?;
        let placed = self.telephony.place(settings, request).await;
        if self.faults.happens(|odds| odds.redirect) {
            // A redirect says nothing about what became of the request.
            if self.bug == Some(Bug::FollowRedirect) {
                return Ok(self.telephony.place(settings, request).await);
            }
            return Err(Failed::NoAnswer);
        }
        if self.faults.silence().is_some() {
            tokio::time::sleep(self.post_timeout).await;
            self.faults.halt_if_crashed().await;
            if self.bug == Some(Bug::LateMeansFailed) {
                return Err(Failed::Unreachable);
            }
            return Err(Failed::NoAnswer);
        }
        self.faults.after(nth).await?;
        Ok(placed)
    }
}

impl Telephony for SimTelephony {
    fn has_callbacks(&self) -> bool {
        self.telephony.has_callbacks()
    }

    async fn place(
        &self,
        settings: &VoiceSettings,
        request: &CallRequest<'_>,
    ) -> Result<Call, CallFailure> {
        let placed = match self.post(settings, request).await {
            Ok(placed) => placed,
            Err(Failed::Unreachable) => Err(failure(Class::Transient)),
            Err(Failed::NoAnswer) => Err(failure(Class::Ambiguous)),
        };
        match placed {
            Err(lost) if lost.class == Class::Ambiguous && self.bug == Some(Bug::SkipSettling) => {
                Err(failure(Class::Transient))
            }
            placed => placed,
        }
    }

    async fn fetch(&self, settings: &VoiceSettings, sid: &CallSid) -> Result<Call, CallFailure> {
        let (settings, sid) = (settings.clone(), sid.clone());
        self.pass(|telephony| async move { telephony.fetch(&settings, &sid).await })
            .await
    }

    async fn fetch_all(
        &self,
        settings: &VoiceSettings,
        sids: &[CallSid],
        since: Timestamp,
    ) -> Result<Vec<Call>, CallFailure> {
        let (settings, sids) = (settings.clone(), sids.to_vec());
        self.pass(|telephony| async move { telephony.fetch_all(&settings, &sids, since).await })
            .await
    }

    async fn list(
        &self,
        settings: &VoiceSettings,
        to: &PhoneNumber,
    ) -> Result<Vec<Call>, CallFailure> {
        let (settings, to) = (settings.clone(), to.clone());
        self.pass(|telephony| async move { telephony.list(&settings, &to).await })
            .await
    }

    async fn hang_up(
        &self,
        settings: &VoiceSettings,
        sid: &CallSid,
        even_answered: bool,
    ) -> Result<Call, CallFailure> {
        let (settings, sid) = (settings.clone(), sid.clone());
        self.pass(
            |telephony| async move { telephony.hang_up(&settings, &sid, even_answered).await },
        )
        .await
    }
}

fn failure(class: Class) -> CallFailure {
    let text = || "failure injected by the simulation".to_owned();
    CallFailure {
        class,
        provider_code: None,
        http_status: None,
        request_id: None,
        tenant_message: text(),
        operator_message: text(),
    }
}
