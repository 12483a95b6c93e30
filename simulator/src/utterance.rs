//! A stretch of what a call plays.

use std::sync::Arc;
use std::time::Duration;

/// One stretch of a call's speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utterance {
    /// The words or the character; empty for a pause.
    pub text: String,
    /// The letter or digit that is spoken on its own, where one is: also as a word, as in `four`.
    pub symbol: Option<char>,
    /// Whether it is words, a character or a pause.
    pub kind: UtteranceKind,
    /// The language it is spoken in.
    pub language: Arc<str>,
    /// The voice that speaks it; `man` where the `TwiML` names none, as at Twilio.
    pub voice: Arc<str>,
    /// How long it takes, by estimate.
    pub duration: Duration,
}

/// The kinds of utterances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UtteranceKind {
    /// Words, spoken as words. A number such as `4921` is one, and so is `4.` where that is an
    /// ordinal.
    Words,
    /// One letter or digit on its own.
    Character,
    /// Silence between two texts.
    Pause,
}
