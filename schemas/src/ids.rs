//! Identifiers: of tenants, of deliveries, and of users as the auth service knows them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Refused;

/// A tenant of the identity platform: 1 to 64 of `A-Za-z0-9_-`. No dot, since the id is a word of
/// routing keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(String);

/// A delivery: 1 to 128 of `A-Za-z0-9._:-`. The publisher chooses it as the `CloudEvents` `id` of
/// the request. Together with the tenant it is the idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(String);

/// A user as the auth service knows it: opaque, 1 to 128 characters, no control characters. `Debug`
/// hides it, since it may be an e-mail address.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserRef(String);

const TENANT: &str = "1 to 64 characters of A-Z, a-z, 0-9, _ and -";
const DELIVERY: &str = "1 to 128 characters of A-Z, a-z, 0-9, ., _, : and -";

impl TenantId {
    /// Parses a tenant id.
    ///
    /// # Errors
    /// [`Refused`] describes a valid tenant id.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        checked(text, 64, fits).map(Self).ok_or(Refused(TENANT))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl DeliveryId {
    /// Parses a delivery id.
    ///
    /// # Errors
    /// [`Refused`] describes a valid delivery id.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-');
        checked(text, 128, fits).map(Self).ok_or(Refused(DELIVERY))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl UserRef {
    /// Parses a user reference.
    ///
    /// # Errors
    /// [`Refused`] when the text is empty, longer than 128 characters, or holds a control
    /// character.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.is_empty() || text.chars().count() > 128 || text.chars().any(char::is_control) {
            return Err(Refused("1 to 128 characters, no control characters"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The reference as text. Use it only to send it or to hash it with a key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text, if it has 1 to `max_bytes` bytes and all of them fit.
fn checked(text: &str, max_bytes: usize, fits: impl Fn(u8) -> bool) -> Option<String> {
    let valid = !text.is_empty() && text.len() <= max_bytes && text.bytes().all(fits);
    valid.then(|| text.to_owned())
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UserRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserRef(…)")
    }
}

impl std::str::FromStr for TenantId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl std::str::FromStr for DeliveryId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl std::str::FromStr for UserRef {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::parse(text)
    }
}

impl Serialize for TenantId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TenantId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DeliveryId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for UserRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for TenantId {
    fn schema_name() -> Cow<'static, str> {
        "TenantId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$",
            "description": "The tenant: 1 to 64 characters of A-Z, a-z, 0-9, _ and -."
        })
    }
}

impl JsonSchema for DeliveryId {
    fn schema_name() -> Cow<'static, str> {
        "DeliveryId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$",
            "description": "The delivery: the CloudEvents id of its request. Together with the \
                tenant it is the idempotency key."
        })
    }
}

impl JsonSchema for UserRef {
    fn schema_name() -> Cow<'static, str> {
        "UserRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "minLength": 1, "maxLength": 128,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
            "description": "The user as the auth service knows it, opaque. A newer request of a \
                user supersedes the older one."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_has_no_dot_since_it_is_a_word_of_a_routing_key() {
        assert!(TenantId::parse("acme-1_X").is_ok());
        for bad in ["", "a.b", "a b", "ä", "a*", "#", &"x".repeat(65)] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_delivery_id_may_be_a_uuid_or_a_path_of_names() {
        assert!(DeliveryId::parse("018f:login.7_a-B").is_ok());
        for bad in ["", "a/b", "a b", "a\n", &"x".repeat(129)] {
            assert!(DeliveryId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_does_not_show_a_user_reference() {
        let user = UserRef::parse("jane@example.com").unwrap();
        assert!(!format!("{user:?}").contains("jane"));
        assert!(UserRef::parse("a\u{7}").is_err());
    }
}
