//! The answered part of a call with a `Url`: it requests `TwiML`, plays it, and presses keys for
//! the callee.

use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use crate::call_plan::{AnswerPlan, Callee};
use crate::callback::{common_fields, webhook_request};
use crate::connection_overrides::ConnectionOverrides;
use crate::fate::Fate;
use crate::lifecycle::CallLifecycle;
use crate::twiml::{self, Step};
use crate::utterance::Utterance;
use crate::webhook::Webhook;
use crate::webhook_client;

/// How many documents a call requests at most. This is Twilio's limit for a trial account; paid
/// accounts have a higher one.
const MAX_DOCUMENTS: usize = 10;
/// The largest document that Twilio takes, in bytes (error 11750).
const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// From the end of a prompt until the callee presses a key.
const KEY_DELAY: Duration = Duration::from_millis(700);
/// How long Twilio's announcement of an application error takes.
const ERROR_ANNOUNCEMENT: Duration = Duration::from_secs(3);

/// The answered part of a call.
struct Conversation<'a> {
    lifecycle: &'a CallLifecycle,
    answer_plan: AnswerPlan,
    fate: Fate,
    /// How long the call has lasted since the answer.
    elapsed: Duration,
    /// How many keys the callee has pressed.
    keys_pressed: u32,
}

/// Why a conversation stops before its documents end.
enum Stop {
    /// `<Hangup/>`, the callee or the time limit ends the call.
    Completed,
    /// An update ended the call.
    HungUp,
}

/// A document to request.
struct DocumentRequest {
    url: String,
    /// The key that the callee pressed to get there.
    key: Option<char>,
}

impl CallLifecycle {
    /// Requests and plays `TwiML` until the call ends. Returns how long the call lasted, or `None`
    /// if an update ended it.
    pub(crate) async fn converse(
        &self,
        twiml_url: &Webhook,
        answer_plan: AnswerPlan,
        fate: Fate,
    ) -> Option<Duration> {
        let mut conversation = Conversation {
            lifecycle: self,
            answer_plan,
            fate,
            elapsed: answer_plan.speech_after.min(answer_plan.ends_after),
            keys_pressed: 0,
        };
        match conversation.run(twiml_url).await {
            Ok(()) | Err(Stop::Completed) => Some(conversation.elapsed),
            Err(Stop::HungUp) => None,
        }
    }
}

impl Conversation<'_> {
    async fn run(&mut self, twiml_url: &Webhook) -> Result<(), Stop> {
        let mut next = Some(DocumentRequest {
            url: twiml_url.url.clone(),
            key: None,
        });
        for document in 0..MAX_DOCUMENTS {
            let Some(DocumentRequest { url, key }) = next.take() else {
                return Ok(());
            };
            let overrides = if document == 0 {
                Ok(twiml_url.overrides.clone())
            } else {
                ConnectionOverrides::of(&url)
            };
            let webhook = Webhook {
                url,
                overrides: overrides.unwrap_or_default(),
            };
            let Some(steps) = self.fetch(&webhook, document, key).await else {
                // Twilio announces that an application error has occurred.
                return self.wait(ERROR_ANNOUNCEMENT).await;
            };
            for step in steps {
                next = self.play(step, &webhook.url).await?;
                if next.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Plays a step of the document at `url`. Returns the next document to request, if the step
    /// leads to one.
    async fn play(&mut self, step: Step, url: &str) -> Result<Option<DocumentRequest>, Stop> {
        match step {
            Step::Say(utterances) => self.say(utterances).await.map(|()| None),
            Step::Gather {
                prompt,
                timeout,
                action,
            } => {
                self.say(prompt).await?;
                let Some(key) = self.key_to_press() else {
                    self.wait(timeout).await?;
                    return Ok(None);
                };
                self.wait(KEY_DELAY).await?;
                self.keys_pressed += 1;
                Ok(Some(DocumentRequest {
                    url: resolve(url, action.as_deref()),
                    key: Some(key),
                }))
            }
            Step::Redirect(to) => Ok(Some(DocumentRequest {
                url: resolve(url, Some(&to)),
                key: None,
            })),
            Step::Hangup => Err(Stop::Completed),
        }
    }

    /// The key that the callee presses when prompted for one.
    fn key_to_press(&self) -> Option<char> {
        if self.answer_plan.callee == Callee::Machine {
            return None;
        }
        match self.fate {
            Fate::NoKey => None,
            Fate::WrongKey => Some('7'),
            Fate::PressesAgain => Some('1'),
            _ => (self.keys_pressed == 0).then_some('1'),
        }
    }

    async fn say(&mut self, utterances: Vec<Utterance>) -> Result<(), Stop> {
        let duration = utterances.iter().map(|utterance| utterance.duration).sum();
        if let Some(call) = self.lifecycle.state.calls().get_mut(self.lifecycle.id) {
            call.spoken.extend(utterances);
        }
        self.wait(duration).await
    }

    /// Waits, but not beyond the planned end of the call.
    async fn wait(&mut self, duration: Duration) -> Result<(), Stop> {
        let left = self.answer_plan.ends_after.saturating_sub(self.elapsed);
        let waited = duration.min(left);
        self.lifecycle.wait(waited).await.ok_or(Stop::HungUp)?;
        self.elapsed += waited;
        if waited < duration {
            Err(Stop::Completed)
        } else {
            Ok(())
        }
    }

    /// Requests a document and reads it. Returns `None` if it can't be fetched, or if Twilio could
    /// not play it.
    async fn fetch(
        &self,
        webhook: &Webhook,
        document: usize,
        key: Option<char>,
    ) -> Option<Vec<Step>> {
        let state = &self.lifecycle.state;
        let request = state.calls().get_mut(self.lifecycle.id).map(|call| {
            let mut fields = common_fields(call);
            if let Some(found) = call.answered_by {
                fields.push(("AnsweredBy", found.to_owned()));
            }
            if let Some(detection) = self.answer_plan.detection_after.filter(|_| document == 0) {
                fields.push((
                    "MachineDetectionDuration",
                    detection.as_millis().to_string(),
                ));
            }
            if let Some(key) = key {
                fields.push(("Digits", key.to_string()));
            }
            // Counts down from below the detection's number; progress callbacks count up.
            let request_number = u32::MAX - 1 - u32::try_from(document).unwrap_or(0);
            webhook_request(call, webhook, request_number, fields)
        })?;
        let body = webhook_client::fetch(state, &request)
            .await
            .filter(|body| body.len() <= MAX_DOCUMENT_BYTES);
        let steps = body.and_then(|body| match twiml::steps(&body) {
            Ok(steps) => Some(steps),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a call was answered with TwiML that Twilio can't play"
                );
                None
            }
        });
        let counter = if steps.is_some() {
            &state.counters.asked
        } else {
            &state.counters.asked_in_vain
        };
        counter.fetch_add(1, Ordering::Relaxed);
        steps
    }
}

/// Resolves a reference against a document's URL. Without a valid one it is the document's own URL.
fn resolve(base: &str, reference: Option<&str>) -> String {
    let resolved = reference.and_then(|reference| Url::parse(base).ok()?.join(reference).ok());
    resolved.map_or_else(|| base.to_owned(), String::from)
}
