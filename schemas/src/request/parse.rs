//! Parsing of a message into an event.

use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::{
    CANCELLED, Cancelled, Identity, Incoming, Invalid, Problem, REQUESTED, Requested, Target,
    VERIFIED, Verified,
};
use crate::envelope::{self, Message, Unreadable, parse_time};
use crate::reason::ReasonCode;
use crate::{
    Context, DeliveryId, DeliveryKey, Extension, Locale, OtpCode, PhoneNumber, Refused, TenantId,
    UserRef,
};

/// Parses a message.
///
/// # Errors
/// [`Unreadable`] when no status can report the problem. The message is to be dead-lettered.
pub fn read(message: Message<'_>) -> Result<Incoming, Unreadable> {
    let mut event = envelope::open(message)?;
    let incoming = match (event.kind.as_str(), event.invalid_attribute) {
        (REQUESTED, _) => requested(&event),
        (CANCELLED | VERIFIED, Some(attribute)) => Err(Unreadable::Attribute(attribute)),
        (CANCELLED, None) => cancelled(&event),
        (VERIFIED, None) => verified(&event.data),
        _ => Err(Unreadable::UnknownType),
    };
    // The parsed JSON holds a second copy of the code.
    if let Some(Value::String(code)) = event.data.get_mut("code") {
        code.zeroize();
    }
    incoming
}

/// The delivery that an unreadable message names, if its tenant and its id are valid: for the dead
/// letter. A body that is too long isn't read, since JSON needs many times its length in memory.
pub fn delivery_key_of(message: Message<'_>) -> Option<DeliveryKey> {
    if message.body.len() > envelope::MAX_BODY_BYTES {
        return None;
    }
    let event: Value = serde_json::from_slice(message.body).ok()?;
    let tenant_id = event.pointer("/data/tenant_id").and_then(Value::as_str);
    let delivery_id = event.get("id").and_then(Value::as_str);
    Some(DeliveryKey {
        tenant_id: TenantId::parse(tenant_id?).ok()?,
        delivery_id: DeliveryId::parse(delivery_id?).ok()?,
    })
}

fn requested(event: &envelope::Envelope) -> Result<Incoming, Unreadable> {
    let data = &event.data;
    let tenant_id = tenant(data)?;
    let delivery_id = DeliveryId::parse(&event.id).map_err(|_| Unreadable::Nameless("id"))?;
    let invalid_attribute = event.invalid_attribute.map(|field| Problem {
        field,
        must_be: "valid by CloudEvents 1.0",
    });
    let mut fields = Fields {
        data,
        problems: invalid_attribute.into_iter().collect(),
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

fn cancelled(event: &envelope::Envelope) -> Result<Incoming, Unreadable> {
    let data = &event.data;
    let unusable = Unreadable::Data("exactly one of delivery_id and user_ref");
    let text = |name: &str| data.get(name).filter(|value| !value.is_null());
    let target = match (text("delivery_id"), text("user_ref")) {
        (Some(Value::String(id)), None) => DeliveryId::parse(id).map(Target::Delivery),
        (None, Some(Value::String(user))) => UserRef::parse(user).map(Target::User),
        _ => return Err(unusable),
    };
    Ok(Incoming::Cancelled(Cancelled {
        tenant_id: tenant(data)?,
        target: target.map_err(|_| unusable)?,
        time: event.time,
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

/// Parses the fields of a request and collects every invalid one.
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
                must_be: "present",
            });
        }
        value
    }

    /// Parses a field that may be absent or null.
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

    /// Rejects control characters anywhere in the data. The known fields have stricter rules of
    /// their own, so this finds only unknown fields, and runs only if the known ones are valid.
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
