//! The states of a delivery, and the words that the ledger stores.

use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for its slot, a retry, or the end of a pause. No POST is in progress.
    Waiting,
    /// The intent is stored; a POST is about to be sent, or was sent and its outcome isn't stored.
    Placing,
    /// A POST was sent and its outcome is unknown. Twilio must be asked before anything else.
    Unsettled,
    /// Twilio has the call.
    Calling,
    /// The final status is published, or in the outbox.
    Final,
}

/// What was played to a call that requested its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Played {
    /// The code.
    Code,
    /// The prompt to press a key for the code.
    Prompt,
    /// Nothing: a machine answered, the delivery was cancelled, or the code had expired.
    Nothing,
}

/// Why a delivery is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelCause {
    /// The publisher sent a `cancelled` event.
    Request,
    /// A newer request of the same user arrived.
    Superseded,
    /// The code was entered before another call was placed.
    Verified,
    /// An operator cancelled it.
    Operator,
    /// Twilio held the call in its queue until it would have rung too late.
    ProviderQueue,
}

impl State {
    /// Every state, in the order of a delivery's life.
    pub const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Placing,
        Self::Unsettled,
        Self::Calling,
        Self::Final,
    ];

    /// The word that the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Placing => "placing",
            Self::Unsettled => "unsettled",
            Self::Calling => "calling",
            Self::Final => "final",
        }
    }

    /// Parses the ledger's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl Played {
    /// Every value.
    pub const ALL: [Self; 3] = [Self::Code, Self::Prompt, Self::Nothing];

    /// The word that the ledger stores.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Prompt => "prompt",
            Self::Nothing => "nothing",
        }
    }

    /// Parses the ledger's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|played| played.as_str() == word)
    }
}

impl CancelCause {
    /// Every cause.
    pub const ALL: [Self; 5] = [
        Self::Request,
        Self::Superseded,
        Self::Verified,
        Self::Operator,
        Self::ProviderQueue,
    ];

    /// The reason code of the final status.
    pub fn reason_code(self) -> ReasonCode {
        match self {
            Self::Request => ReasonCode::CancelledByRequest,
            Self::Superseded => ReasonCode::Superseded,
            Self::Verified => ReasonCode::Verified,
            Self::Operator => ReasonCode::CancelledByOperator,
            Self::ProviderQueue => ReasonCode::ProviderQueue,
        }
    }

    /// The word that the ledger stores: that of the reason code.
    pub fn as_str(self) -> &'static str {
        self.reason_code().as_str()
    }

    /// Parses the ledger's word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }

    /// The final status of a delivery that was cancelled for this cause.
    pub fn outcome(self) -> (Status, Reason) {
        let (status, message) = match self {
            Self::Request => (Status::Cancelled, "cancelled by the publisher"),
            Self::Superseded => (
                Status::Cancelled,
                "superseded by a newer request of the same user",
            ),
            Self::Verified => (
                Status::Cancelled,
                "the code was entered, so no further call is placed",
            ),
            Self::Operator => (Status::Cancelled, "cancelled by an operator"),
            Self::ProviderQueue => (
                Status::Expired,
                "Twilio held the call in its queue for too long, so the call was cancelled",
            ),
        };
        (status, Reason::new(self.reason_code(), message))
    }
}
