//! A call that asks what to say: what it is told, what is heard of it, and which keys are pressed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use url::Url;

use super::callback::common_fields;
use super::fate::Fate;
use super::life::Life;
use super::order::Ask;
use super::overrides::Overrides;
use super::plan::{Callee, Talk};
use super::post::{self, Notice};
use super::transcript::Utterance;
use super::twiml::{self, Step};

/// The most documents of one call (Twilio's bound for a trial account; paid ones have more).
const MOST_DOCUMENTS: usize = 10;
/// Twilio's bound for a document (error 11750).
const LONGEST_DOCUMENT: usize = 64 * 1024;
/// From the end of a prompt until somebody presses a key.
const BEFORE_KEY: Duration = Duration::from_millis(700);

/// A conversation under way.
struct Conversation<'a> {
    life: &'a Life,
    talk: Talk,
    fate: Fate,
    /// How long the call has lasted.
    spent: Duration,
    pressed: u32,
}

/// Why a conversation stops.
enum Stop {
    /// The callee, or the time limit, ends the call.
    Over,
    /// It was ended from outside.
    HungUp,
}

impl Life {
    /// Asks, says and listens until the end. Gives how long the call lasted; nothing if it was ended from outside.
    pub(crate) async fn converse(&self, ask: &Ask, talk: Talk, fate: Fate) -> Option<Duration> {
        let mut conversation = Conversation {
            life: self,
            talk,
            fate,
            spent: talk.lead.min(talk.lasts),
            pressed: 0,
        };
        match conversation.run(ask).await {
            Ok(()) | Err(Stop::Over) => Some(conversation.spent),
            Err(Stop::HungUp) => None,
        }
    }
}

impl Conversation<'_> {
    async fn run(&mut self, ask: &Ask) -> Result<(), Stop> {
        let mut next = Some((ask.url.clone(), None));
        for document in 0..MOST_DOCUMENTS {
            let Some((url, key)) = next.take() else {
                return Ok(());
            };
            let overrides = if document == 0 {
                Ok(ask.overrides.clone())
            } else {
                Overrides::of(&url)
            };
            let Some(steps) = self
                .ask(&url, &overrides.unwrap_or_default(), document, key)
                .await
            else {
                // Twilio says that an application error has occurred.
                return self.pass(Duration::from_secs(3)).await;
            };
            for step in steps {
                next = self.take(step, &url).await?;
                if next.is_some() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Takes a step; gives where to ask next, with which key.
    async fn take(
        &mut self,
        step: Step,
        url: &str,
    ) -> Result<Option<(String, Option<char>)>, Stop> {
        match step {
            Step::Say(said) => self.say(said).await.map(|()| None),
            Step::Gather {
                prompt,
                timeout,
                action,
            } => {
                self.say(prompt).await?;
                let Some(key) = self.key() else {
                    self.pass(timeout).await?;
                    return Ok(None);
                };
                self.pass(BEFORE_KEY).await?;
                self.pressed += 1;
                Ok(Some((joined(url, action.as_deref()), Some(key))))
            }
            Step::Redirect(to) => Ok(Some((joined(url, Some(&to)), None))),
            Step::Hangup => Err(Stop::Over),
        }
    }

    /// The key that the callee presses when asked for one.
    fn key(&self) -> Option<char> {
        if self.talk.by == Callee::Machine {
            return None;
        }
        match self.fate {
            Fate::NoKey => None,
            Fate::WrongKey => Some('7'),
            Fate::PressesAgain => Some('1'),
            _ => (self.pressed == 0).then_some('1'),
        }
    }

    async fn say(&mut self, said: Vec<Utterance>) -> Result<(), Stop> {
        let lasts = said.iter().map(|utterance| utterance.lasts).sum();
        if let Some(call) = self.life.world.book().get_mut(self.life.id) {
            call.spoken.extend(said);
        }
        self.pass(lasts).await
    }

    async fn pass(&mut self, lasts: Duration) -> Result<(), Stop> {
        let left = self.talk.lasts.saturating_sub(self.spent);
        let passes = lasts.min(left);
        self.life.pass(passes).await.ok_or(Stop::HungUp)?;
        self.spent += passes;
        if passes < lasts {
            Err(Stop::Over)
        } else {
            Ok(())
        }
    }

    /// What the document there says; nothing if it can't be had, or used.
    async fn ask(
        &self,
        url: &str,
        overrides: &Overrides,
        document: usize,
        key: Option<char>,
    ) -> Option<Vec<Step>> {
        let world = &self.life.world;
        let notice = world.book().get_mut(self.life.id).map(|call| {
            let mut fields = common_fields(call);
            if let Some(found) = call.answered_by {
                fields.push(("AnsweredBy", found.to_owned()));
            }
            if let Some(detection) = self.talk.detection.filter(|_| document == 0) {
                fields.push((
                    "MachineDetectionDuration",
                    detection.as_millis().to_string(),
                ));
            }
            if let Some(key) = key {
                fields.push(("Digits", key.to_string()));
            }
            Notice {
                url: url.to_owned(),
                overrides: overrides.clone(),
                account: call.account.sid.clone(),
                call: call.number,
                which: u32::MAX - 1 - u32::try_from(document).unwrap_or(0),
                fields: fields
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
            }
        })?;
        let body = post::fetch(world, &notice)
            .await
            .filter(|body| body.len() <= LONGEST_DOCUMENT);
        let steps = body.and_then(|body| match twiml::steps(&body) {
            Ok(steps) => Some(steps),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a call was told TwiML that Twilio can't say"
                );
                None
            }
        });
        let count = if steps.is_some() {
            &world.tally.asked
        } else {
            &world.tally.asked_in_vain
        };
        count.fetch_add(1, Ordering::Relaxed);
        steps
    }
}

/// A URL beside another; the same without one.
fn joined(base: &str, to: Option<&str>) -> String {
    let joined = to.and_then(|to| Url::parse(base).ok()?.join(to).ok());
    joined.map_or_else(|| base.to_owned(), String::from)
}
