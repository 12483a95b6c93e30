//! The id of an attempt, which proves itself.

use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use voice_otp_schemas::keys::Keyring;

/// The id of one attempt. It is random, because it stands in the URL that Twilio calls back.
///
/// An id of [`AttemptId::tagged`] is a UUID of version 8: its first 48 bits are a tag, a truncated
/// keyed hash of the 74 random bits, so that a worker refuses a made-up one without the database.
/// The tag doesn't replace Twilio's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptId(pub Uuid);

/// Where an attempt id comes from, as far as it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its tag was made with one of the keys.
    Tagged,
    /// It has no tag: a release that had none may have made it.
    Untagged,
    /// Its tag was made with none of the keys.
    Forged,
}

const TAG_BYTES: usize = 6;
const PURPOSE: &str = "attempt id";

impl AttemptId {
    /// An id with a tag by the first key.
    pub fn tagged(random: [u8; 16], keys: &Keyring) -> Self {
        let mut bytes = uuid::Builder::from_custom_bytes(random)
            .into_uuid()
            .into_bytes();
        let (_, hash) = keys.hash(PURPOSE, &hashed_text(&bytes));
        for (byte, tag) in bytes.iter_mut().zip(hash).take(TAG_BYTES) {
            *byte = tag;
        }
        Self(Uuid::from_bytes(bytes))
    }

    /// Where the id comes from. Each key is tried, in constant time.
    pub fn origin(self, keys: &Keyring) -> Origin {
        if self.0.get_version_num() != 8 {
            return Origin::Untagged;
        }
        let bytes = self.0.as_bytes();
        let (tag, _) = bytes.split_at(TAG_BYTES);
        let is_tag = |hash: &Vec<u8>| {
            let expected = hash.get(..TAG_BYTES).unwrap_or_default();
            bool::from(expected.ct_eq(tag))
        };
        let hashes = keys.hashes(PURPOSE, &hashed_text(bytes));
        if hashes.iter().any(is_tag) {
            Origin::Tagged
        } else {
            Origin::Forged
        }
    }
}

/// What the tag is a hash of: all but the tag, in hexadecimal.
fn hashed_text(bytes: &[u8; 16]) -> String {
    let (_, random) = bytes.split_at(TAG_BYTES);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret as _, SecretString};

    use super::*;

    fn keys(texts: &[&SecretString]) -> Keyring {
        let texts: Vec<&str> = texts.iter().map(|text| text.expose_secret()).collect();
        Keyring::parse(&SecretString::from(texts.join(","))).unwrap()
    }

    #[test]
    fn an_id_is_recognised_by_every_worker_that_still_has_its_key() {
        let (old, new) = (Keyring::generate("old"), Keyring::generate("new"));
        let id = AttemptId::tagged(rand::random(), &keys(&[&old]));
        assert_eq!(id.origin(&keys(&[&old])), Origin::Tagged);
        assert_eq!(id.origin(&keys(&[&new, &old])), Origin::Tagged);
        assert_eq!(id.origin(&keys(&[&new])), Origin::Forged);
        // A worker of the previous release reads it from its URL, like any UUID.
        let text = id.0.simple().to_string();
        assert_eq!(Uuid::try_parse(&text).unwrap(), id.0);
    }

    #[test]
    fn an_id_with_any_bit_changed_is_forged_or_has_no_tag() {
        let keys = keys(&[&Keyring::generate("a")]);
        let id = AttemptId::tagged(rand::random(), &keys);
        for bit in 0..128 {
            let changed = AttemptId(Uuid::from_u128(id.0.as_u128() ^ (1 << bit)));
            assert_ne!(changed.origin(&keys), Origin::Tagged, "bit {bit}");
        }
    }

    #[test]
    fn an_id_of_the_previous_release_has_no_tag() {
        let keys = keys(&[&Keyring::generate("a")]);
        let id = AttemptId(uuid::Builder::from_random_bytes(rand::random()).into_uuid());
        assert_eq!(id.origin(&keys), Origin::Untagged);
    }
}
