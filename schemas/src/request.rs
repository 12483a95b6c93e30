//! The three events that auth services publish.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use crate::envelope::{self, Message, Trace, Unreadable, parse_time};
use crate::reason::ReasonCode;
use crate::{
    Context, DeliveryId, Extension, Locale, OtpCode, PhoneNumber, Refused, TenantId, Timestamp,
    UserRef,
};

/// The type of a request to read a code out.
pub const REQUESTED: &str = "dev.voiceotp.delivery.requested.v1";
/// The type that takes a request back.
pub const CANCELLED: &str = "dev.voiceotp.delivery.cancelled.v1";
/// The type that says the code was entered.
pub const VERIFIED: &str = "dev.voiceotp.delivery.verified.v1";

/// What a message said.
#[derive(Debug, Clone)]
pub enum Incoming {
    /// A request to read a code out.
    Requested(Box<Requested>),
    /// A request that names its tenant and itself but isn't right otherwise: it gets the status `rejected`.
    Invalid(Box<Invalid>),
    /// The person gave up, or signed in another way.
    Cancelled(Cancelled),
    /// The code was entered.
    Verified(Verified),
}

/// Read this code to this number.
#[derive(Debug, Clone)]
pub struct Requested {
    /// Whose request.
    pub tenant_id: TenantId,
    /// Its id, unique for the tenant.
    pub delivery_id: DeliveryId,
    /// Whom to call.
    pub to: PhoneNumber,
    /// What to read.
    pub code: OtpCode,
    /// When the code is worth nothing any more.
    pub expires_at: Timestamp,
    /// In which language, where the request says.
    pub locale: Option<Locale>,
    /// Who is calling for a code: a newer request of the same user supersedes the older.
    pub user_ref: Option<UserRef>,
    /// What to dial after the answer.
    pub extension: Option<Extension>,
    /// Echoed in every status.
    pub context: Context,
    /// The event's `time`.
    pub time: Option<Timestamp>,
    /// The trace that it is part of.
    pub trace: Trace,
}

/// A request that can be answered but not followed.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// Whose request.
    pub tenant_id: TenantId,
    /// Its id.
    pub delivery_id: DeliveryId,
    /// The reason of the status `rejected`.
    pub code: ReasonCode,
    /// What is wrong, a clause a field.
    pub problems: Vec<Problem>,
    /// The number, where it could be read.
    pub to: Option<PhoneNumber>,
    /// The context, where it could be read.
    pub context: Context,
    /// The event's `time`.
    pub time: Option<Timestamp>,
    /// The trace that it is part of.
    pub trace: Trace,
    /// What a repeat is compared by.
    pub identity: Identity,
}

/// One field that isn't what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub must_be: &'static str,
}

/// What makes two events with one id the same request: number, opened code and extension. Secret: only a keyed hash
/// of it is stored.
#[derive(Clone)]
pub struct Identity(Zeroizing<String>);

/// Which deliveries a cancellation means.
#[derive(Debug, Clone)]
pub enum Target {
    /// One.
    Delivery(DeliveryId),
    /// All of a user.
    User(UserRef),
}

/// Take back what has not been heard yet.
#[derive(Debug, Clone)]
pub struct Cancelled {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub target: Target,
}

/// The code was entered.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub delivery_id: DeliveryId,
}

/// Reads a message.
///
/// # Errors
/// [`Unreadable`] when nobody can be answered: the message belongs to the dead letters.
pub fn read(message: Message<'_>) -> Result<Incoming, Unreadable> {
    let mut event = envelope::open(message)?;
    let read = match (event.kind.as_str(), event.wrong) {
        (REQUESTED, _) => requested(&event),
        (CANCELLED | VERIFIED, Some(attribute)) => Err(Unreadable::Attribute(attribute)),
        (CANCELLED, None) => cancelled(&event.data),
        (VERIFIED, None) => verified(&event.data),
        _ => Err(Unreadable::UnknownType),
    };
    // The parsed JSON held the code a second time.
    if let Some(Value::String(code)) = event.data.get_mut("code") {
        code.zeroize();
    }
    read
}

/// Whose a message is that can't be read otherwise: tenant and delivery, where both can be told. For a dead letter.
pub fn names(message: Message<'_>) -> Option<(TenantId, DeliveryId)> {
    let event: Value = serde_json::from_slice(message.body).ok()?;
    let tenant_id = event.pointer("/data/tenant_id").and_then(Value::as_str);
    let delivery_id = event.get("id").and_then(Value::as_str);
    Some((
        TenantId::parse(tenant_id?).ok()?,
        DeliveryId::parse(delivery_id?).ok()?,
    ))
}

fn requested(event: &envelope::Envelope) -> Result<Incoming, Unreadable> {
    let data = &event.data;
    let tenant_id = tenant(data)?;
    let delivery_id = DeliveryId::parse(&event.id).map_err(|_| Unreadable::Nameless("id"))?;
    let wrong = event.wrong.map(|field| Problem {
        field,
        must_be: "what CloudEvents 1.0 says",
    });
    let mut fields = Fields {
        data,
        problems: wrong.into_iter().collect(),
    };

    let to = fields.required("to", PhoneNumber::parse);
    let sealed = data
        .get("sealed_code")
        .is_some_and(|value| !value.is_null());
    let code = if sealed {
        None
    } else {
        fields.required("code", OtpCode::parse)
    };
    let expires_at = fields.required("expires_at", |text| {
        parse_time(text).ok_or(Refused(
            "an RFC 3339 time, for example 2026-01-31T12:00:00Z",
        ))
    });
    let locale = fields.optional("locale", Locale::parse);
    let user_ref = fields.optional("user_ref", UserRef::parse);
    let extension = fields.optional("extension", Extension::parse);
    let context = fields.context();
    fields.no_control_characters();
    let problems = fields.problems;

    match (to, code, expires_at) {
        (Some(to), Some(code), Some(expires_at)) if problems.is_empty() => {
            Ok(Incoming::Requested(Box::new(Requested {
                tenant_id,
                delivery_id,
                to,
                code,
                expires_at,
                locale,
                user_ref,
                extension,
                context,
                time: event.time,
                trace: event.trace.clone(),
            })))
        }
        (to, _, _) => Ok(Incoming::Invalid(Box::new(Invalid {
            tenant_id,
            delivery_id,
            code: if sealed {
                ReasonCode::SealedCodeUnsupported
            } else {
                ReasonCode::InvalidRequest
            },
            problems,
            to,
            context,
            time: event.time,
            trace: event.trace.clone(),
            identity: Identity::of_values(data.get("to"), data.get("code"), data.get("extension")),
        }))),
    }
}

fn cancelled(data: &Map<String, Value>) -> Result<Incoming, Unreadable> {
    let wrong = Unreadable::Data("exactly one of delivery_id and user_ref");
    let text = |name: &str| data.get(name).filter(|value| !value.is_null());
    let target = match (text("delivery_id"), text("user_ref")) {
        (Some(Value::String(id)), None) => DeliveryId::parse(id).map(Target::Delivery),
        (None, Some(Value::String(user))) => UserRef::parse(user).map(Target::User),
        _ => return Err(wrong),
    };
    Ok(Incoming::Cancelled(Cancelled {
        tenant_id: tenant(data)?,
        target: target.map_err(|_| wrong)?,
    }))
}

fn verified(data: &Map<String, Value>) -> Result<Incoming, Unreadable> {
    let id = data
        .get("delivery_id")
        .and_then(Value::as_str)
        .and_then(|id| DeliveryId::parse(id).ok());
    let delivery_id = id.ok_or(Unreadable::Data("delivery_id"))?;
    Ok(Incoming::Verified(Verified {
        tenant_id: tenant(data)?,
        delivery_id,
    }))
}

fn tenant(data: &Map<String, Value>) -> Result<TenantId, Unreadable> {
    let text = data.get("tenant_id").and_then(Value::as_str);
    text.and_then(|text| TenantId::parse(text).ok())
        .ok_or(Unreadable::Nameless("tenant_id"))
}

/// Reads the fields of a request and collects all that is wrong with them.
struct Fields<'a> {
    data: &'a Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields<'_> {
    fn required<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let value = self.optional(field, parse);
        if value.is_none() && !self.problems.iter().any(|problem| problem.field == field) {
            self.problems.push(Problem {
                field,
                must_be: "given",
            });
        }
        value
    }

    /// A field that may be left out, or null.
    fn optional<T>(
        &mut self,
        field: &'static str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let parsed = match self.data.get(field) {
            None | Some(Value::Null) => return None,
            Some(Value::String(text)) => parse(text),
            Some(_) => Err(Refused("a string")),
        };
        parsed
            .map_err(|Refused(must_be)| self.problems.push(Problem { field, must_be }))
            .ok()
    }

    fn context(&mut self) -> Context {
        let context = match self.data.get("context") {
            None | Some(Value::Null) => Ok(Context::default()),
            Some(value) => Context::from_json(value),
        };
        context.unwrap_or_else(|Refused(must_be)| {
            self.problems.push(Problem {
                field: "context",
                must_be,
            });
            Context::default()
        })
    }

    /// The fields that we know have rules of their own; this is for the ones that we don't.
    fn no_control_characters(&mut self) {
        if self.problems.is_empty()
            && self
                .data
                .iter()
                .any(|(name, value)| has_controls(name, value))
        {
            self.problems.push(Problem {
                field: "data",
                must_be: "free of control characters",
            });
        }
    }
}

fn has_controls(name: &str, value: &Value) -> bool {
    let controls = |text: &str| text.chars().any(char::is_control);
    let inside = match value {
        Value::String(text) => controls(text),
        Value::Array(items) => items.iter().any(|item| has_controls("", item)),
        Value::Object(map) => map.iter().any(|(name, value)| has_controls(name, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    };
    inside || controls(name)
}

impl Requested {
    /// What a repeat is compared by.
    pub fn identity(&self) -> Identity {
        let extension = self.extension.as_ref().map(Extension::expose);
        let texts = (self.to.expose(), self.code.expose(), extension);
        // Three strings always have a JSON form.
        Identity(Zeroizing::new(
            serde_json::to_string(&texts).unwrap_or_default(),
        ))
    }

    /// The event in structured mode, as a publisher sends it. `source` is a URI reference that names the publisher.
    pub fn to_json(&self, source: &str) -> Zeroizing<Vec<u8>> {
        let mut data = json!({
            "tenant_id": self.tenant_id,
            "to": self.to.expose(),
            "code": self.code.expose(),
            "expires_at": rfc3339(self.expires_at),
        });
        if let Some(map) = data.as_object_mut() {
            let mut put = |name: &str, value: Option<Value>| {
                value.map(|value| map.insert(name.to_owned(), value))
            };
            put("locale", self.locale.as_ref().map(|locale| json!(locale)));
            put("user_ref", self.user_ref.as_ref().map(|user| json!(user)));
            put(
                "extension",
                self.extension
                    .as_ref()
                    .map(|extension| json!(extension.expose())),
            );
            put(
                "context",
                (!self.context.is_empty()).then(|| json!(self.context)),
            );
        }
        event_json(
            REQUESTED,
            self.delivery_id.as_str(),
            source,
            self.time,
            &data,
        )
    }
}

impl Cancelled {
    /// The event in structured mode. `id` is the event's own.
    pub fn to_json(&self, id: &str, source: &str, time: Option<Timestamp>) -> Zeroizing<Vec<u8>> {
        let data = match &self.target {
            Target::Delivery(delivery) => {
                json!({ "tenant_id": self.tenant_id, "delivery_id": delivery })
            }
            Target::User(user) => json!({ "tenant_id": self.tenant_id, "user_ref": user }),
        };
        event_json(CANCELLED, id, source, time, &data)
    }
}

impl Verified {
    /// The event in structured mode. `id` is the event's own.
    pub fn to_json(&self, id: &str, source: &str, time: Option<Timestamp>) -> Zeroizing<Vec<u8>> {
        let data = json!({ "tenant_id": self.tenant_id, "delivery_id": self.delivery_id });
        event_json(VERIFIED, id, source, time, &data)
    }
}

fn event_json(
    kind: &str,
    id: &str,
    source: &str,
    time: Option<Timestamp>,
    data: &Value,
) -> Zeroizing<Vec<u8>> {
    let mut event = BTreeMap::from([
        ("specversion", json!("1.0")),
        ("id", json!(id)),
        ("source", json!(source)),
        ("type", json!(kind)),
        ("datacontenttype", json!("application/json")),
        ("data", data.clone()),
    ]);
    if let Some(time) = time {
        event.insert("time", json!(rfc3339(time)));
    }
    // A map of strings and values always has a JSON form.
    Zeroizing::new(serde_json::to_vec(&event).unwrap_or_default())
}

/// A time as events carry it: RFC 3339, UTC, milliseconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

impl Identity {
    fn of_values(to: Option<&Value>, code: Option<&Value>, extension: Option<&Value>) -> Self {
        let texts = [to, code, extension].map(|value| value.unwrap_or(&Value::Null));
        Self(Zeroizing::new(
            serde_json::to_string(&texts).unwrap_or_default(),
        ))
    }

    /// The canonical text: only for a keyed hash.
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
