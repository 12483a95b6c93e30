//! The three events that auth services publish: requests, cancellations and verifications.

mod parse;
mod write;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::envelope::Trace;
use crate::reason::ReasonCode;
use crate::{
    Context, DeliveryId, DeliveryKey, Extension, Locale, OtpCode, PhoneNumber, TenantId, Timestamp,
    UserRef,
};

pub use parse::{delivery_key_of, read};
pub use write::rfc3339;

/// The `CloudEvents` `type` of a request to read a code out.
pub const REQUESTED: &str = "dev.voiceotp.delivery.requested.v1";
/// The `CloudEvents` `type` of a cancellation.
pub const CANCELLED: &str = "dev.voiceotp.delivery.cancelled.v1";
/// The `CloudEvents` `type` of a verification: the code was entered.
pub const VERIFIED: &str = "dev.voiceotp.delivery.verified.v1";

/// A parsed event.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A valid request to read a code out.
    Requested(Box<Requested>),
    /// A request with a valid tenant and id but another invalid field. It gets the status
    /// `rejected`.
    Invalid(Box<Invalid>),
    /// A cancellation: the callee gave up, or signed in another way.
    Cancelled(Cancelled),
    /// A verification: the callee entered the code.
    Verified(Verified),
}

/// A request to read a code to a telephone number.
#[derive(Debug, Clone)]
pub struct Requested {
    /// The tenant that the request belongs to.
    pub tenant_id: TenantId,
    /// The event's `id`: the id of the delivery, unique within the tenant.
    pub delivery_id: DeliveryId,
    /// The number to call.
    pub to: PhoneNumber,
    /// The code to read out.
    pub code: OtpCode,
    /// When the code expires.
    pub expires_at: Timestamp,
    /// The language to speak. `None`: the tenant's, else the one of the number's country.
    pub locale: Option<Locale>,
    /// The user who signs in. A newer request of the same user supersedes this one.
    pub user_ref: Option<UserRef>,
    /// The digits to dial after the answer.
    pub extension: Option<Extension>,
    /// The publisher's own data, echoed in every status.
    pub context: Context,
    /// The event's `time`. The `timings` of statuses count from it.
    pub time: Option<Timestamp>,
    /// The trace context of the request, copied to its statuses.
    pub trace: Trace,
}

/// A request with an invalid field. A status can report it, but no call can be placed.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// The tenant that the request belongs to.
    pub tenant_id: TenantId,
    /// The event's `id`: the id of the delivery.
    pub delivery_id: DeliveryId,
    /// The reason code of the status `rejected`.
    pub code: ReasonCode,
    /// The invalid fields, one entry for each.
    pub problems: Vec<Problem>,
    /// The number, if it is valid.
    pub to: Option<PhoneNumber>,
    /// The context; empty if it is invalid.
    pub context: Context,
    /// The event's `time`. The `timings` of statuses count from it.
    pub time: Option<Timestamp>,
    /// The trace context of the request, copied to its statuses.
    pub trace: Trace,
    /// The content by which a duplicate is recognised.
    pub identity: Identity,
}

/// An invalid field of a request. Prints as "FIELD must be …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// The name of the field.
    pub field: &'static str,
    /// What a valid value is; never the value itself.
    pub must_be: &'static str,
}

/// The content of a request that distinguishes a duplicate from a conflicting duplicate: number,
/// code and extension. It is secret: only a keyed hash of it is stored.
#[derive(Clone)]
pub struct Identity(Zeroizing<String>);

/// The deliveries that a cancellation names.
#[derive(Debug, Clone)]
pub enum Target {
    /// One delivery, by its id.
    Delivery(DeliveryId),
    /// Every delivery of a user whose request is not newer than the cancellation.
    User(UserRef),
}

/// A cancellation of deliveries that have not been answered yet.
#[derive(Debug, Clone)]
pub struct Cancelled {
    /// The tenant that the deliveries belong to.
    pub tenant_id: TenantId,
    /// The deliveries to cancel.
    pub target: Target,
    /// The event's `time`. A cancellation by user cancels the requests that are not newer.
    pub time: Option<Timestamp>,
}

/// A verification: the code of a delivery was entered, so no other call is placed for it.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The tenant that the delivery belongs to.
    pub tenant_id: TenantId,
    /// The delivery whose code was entered.
    pub delivery_id: DeliveryId,
}

impl Incoming {
    /// The delivery that the event names. `None` for a cancellation: it may name a user instead,
    /// and a delivery that does not exist yet.
    pub fn key(&self) -> Option<DeliveryKey> {
        match self {
            Self::Requested(request) => Some(request.key()),
            Self::Invalid(invalid) => Some(invalid.key()),
            Self::Verified(verified) => Some(verified.key()),
            Self::Cancelled(_) => None,
        }
    }
}

impl Invalid {
    /// The key of the delivery that the request would have created.
    pub fn key(&self) -> DeliveryKey {
        DeliveryKey {
            tenant_id: self.tenant_id.clone(),
            delivery_id: self.delivery_id.clone(),
        }
    }
}

impl Requested {
    /// The key of the delivery that the request creates.
    pub fn key(&self) -> DeliveryKey {
        DeliveryKey {
            tenant_id: self.tenant_id.clone(),
            delivery_id: self.delivery_id.clone(),
        }
    }

    /// The content by which a duplicate is recognised.
    pub fn identity(&self) -> Identity {
        let extension = self.extension.as_ref().map(Extension::expose);
        let texts = (self.to.expose(), self.code.expose(), extension);
        Identity(canonical_json(&texts))
    }
}

impl Verified {
    /// The key of the delivery whose code was entered.
    pub fn key(&self) -> DeliveryKey {
        DeliveryKey {
            tenant_id: self.tenant_id.clone(),
            delivery_id: self.delivery_id.clone(),
        }
    }
}

/// The JSON text of three values: number, code and extension.
fn canonical_json(values: &impl serde::Serialize) -> Zeroizing<String> {
    #[expect(
        clippy::expect_used,
        reason = "serialising strings and JSON values can't fail"
    )]
    let json = serde_json::to_string(values).expect("strings have a JSON form");
    Zeroizing::new(json)
}

impl Identity {
    /// The identity of an invalid request, whose values need not be strings.
    pub(super) fn of_values(
        to: Option<&Value>,
        code: Option<&Value>,
        extension: Option<&Value>,
    ) -> Self {
        let texts = [to, code, extension].map(|value| value.unwrap_or(&Value::Null));
        Self(canonical_json(&texts))
    }

    /// The canonical text. Use it only as the input of a keyed hash.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} must be {}", self.field, self.must_be)
    }
}
