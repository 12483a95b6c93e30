//! Encryption of secrets at rest (sealing), and keyed hashes.
//!
//! `VOICE_OTP_KEYS` is `id:base64 of 32 bytes[,…]`. The first key seals; all of them open. Every
//! sealed row stores the id of its key. To rotate: add the new key on every worker, then move it to
//! the front, and remove the old one when no row has its id.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The keys of `VOICE_OTP_KEYS`. The first one seals and hashes; every one opens.
#[derive(Clone)]
pub struct Keyring {
    first: Key,
    others: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
    /// The key of the keyed hashes, derived from the same 32 bytes.
    hash: Zeroizing<[u8; 32]>,
}

/// A sealed secret and the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The id of the key.
    pub key_id: String,
    /// The nonce (24 bytes), then the ciphertext with its authentication tag.
    pub sealed: Vec<u8>,
}

/// Why `VOICE_OTP_KEYS` is invalid. The texts never contain a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is no key.
    #[error("there is no key; make one with: voice-otp keys new")]
    Empty,
    /// The key at this position, from 1, isn't `id:base64 of 32 bytes`.
    #[error(
        "key {0} is not id:base64 of 32 bytes (an id is 1 to 32 of A-Z, a-z, 0-9, _ and -); make \
         one with: voice-otp keys new"
    )]
    Malformed(usize),
    /// Two keys have this id.
    #[error("two keys have the id {0}; give each key an id of its own")]
    DuplicateId(String),
}

/// Why a sealed secret can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The key with this id, which sealed it, isn't in the keyring.
    #[error("sealed with key {0}, which is missing here; add it to VOICE_OTP_KEYS")]
    UnknownKey(String),
    /// The key with this id doesn't authenticate the secret: the row was changed or moved, or a
    /// different key had this id.
    #[error(
        "can't be opened with key {0}: the row was changed or moved, or a different key had this id"
    )]
    Unauthentic(String),
}

const NONCE_BYTES: usize = 24;

impl Keyring {
    /// Parses `VOICE_OTP_KEYS`.
    ///
    /// # Errors
    /// [`KeysError`] names the invalid key by its position.
    pub fn parse(text: &SecretString) -> Result<Self, KeysError> {
        let mut keys: Vec<Key> = Vec::new();
        let entries = text
            .expose_secret()
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        for (index, entry) in entries.enumerate() {
            let key = Key::parse(entry).ok_or(KeysError::Malformed(index + 1))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeysError::DuplicateId(key.id));
            }
            keys.push(key);
        }
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeysError::Empty)?;
        Ok(Self {
            first,
            others: keys.collect(),
        })
    }

    /// A new random key in the format of `VOICE_OTP_KEYS`.
    pub fn generate(id: &str) -> SecretString {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
        SecretString::from(format!("{id}:{}", STANDARD.encode(bytes.as_slice())))
    }

    /// The ids of all keys; the one that seals comes first.
    pub fn ids(&self) -> Vec<String> {
        self.keys().map(|key| key.id.clone()).collect()
    }

    /// Seals a secret with the first key. `place` names the place where it is stored; the secret
    /// opens only with the same `place`.
    ///
    /// # Panics
    /// If the secret is longer than 256 GiB, the limit of the cipher.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Sealed {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let payload = Payload {
            msg: secret,
            aad: place.as_bytes(),
        };
        #[expect(
            clippy::expect_used,
            reason = "XChaCha20-Poly1305 fails only on messages of more than 256 GiB"
        )]
        let sealed = self
            .first
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("the secret is shorter than 256 GiB");
        Sealed {
            key_id: self.first.id.clone(),
            sealed: [nonce.as_slice(), &sealed].concat(),
        }
    }

    /// Opens a sealed secret. `place` must be the one that it was sealed with.
    ///
    /// # Errors
    /// [`OpenError`] says whether the key is missing or doesn't authenticate the secret.
    pub fn open(
        &self,
        place: &str,
        key_id: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let key = self
            .keys()
            .find(|key| key.id == key_id)
            .ok_or_else(|| OpenError::UnknownKey(key_id.to_owned()))?;
        let unauthentic = || OpenError::Unauthentic(key_id.to_owned());
        let (nonce, sealed) = sealed
            .split_at_checked(NONCE_BYTES)
            .ok_or_else(unauthentic)?;
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).map_err(|_| unauthentic())?;
        let payload = Payload {
            msg: sealed,
            aad: place.as_bytes(),
        };
        key.cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| unauthentic())
    }

    /// The keyed hash of a text by the first key, and that key's id. `purpose` separates the hashes
    /// of different kinds of values.
    pub fn hash(&self, purpose: &str, text: &str) -> (String, Vec<u8>) {
        (self.first.id.clone(), self.first.mac(purpose, text))
    }

    /// The keyed hash of a text by the key with this id. `None` if the keyring doesn't have it.
    pub fn hash_with(&self, key_id: &str, purpose: &str, text: &str) -> Option<Vec<u8>> {
        self.keys()
            .find(|key| key.id == key_id)
            .map(|key| key.mac(purpose, text))
    }

    /// The keyed hashes of a text by every key, to find rows that any of them hashed.
    pub fn hashes(&self, purpose: &str, text: &str) -> Vec<Vec<u8>> {
        self.keys().map(|key| key.mac(purpose, text)).collect()
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl Key {
    fn parse(entry: &str) -> Option<Self> {
        let (id, encoded) = entry.split_once(':')?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if id.is_empty() || id.len() > 32 || !id.bytes().all(fits) {
            return None;
        }
        let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
        Some(Self {
            id: id.to_owned(),
            cipher: XChaCha20Poly1305::new(&(*bytes).into()),
            // The hashes use a derived key, so that no key has two uses.
            hash: Zeroizing::new(mac(bytes.as_slice(), "voice-otp keyed hash v1")),
        })
    }

    fn mac(&self, purpose: &str, text: &str) -> Vec<u8> {
        mac(self.hash.as_slice(), &format!("{purpose}\0{text}")).to_vec()
    }
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC accepts keys of any length")]
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key)
        .expect("HMAC accepts keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({:?})", self.ids())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(ids: &[&str]) -> (Keyring, String) {
        let text = ids
            .iter()
            .map(|id| Keyring::generate(id).expose_secret().to_owned())
            .collect::<Vec<_>>()
            .join(",");
        (
            Keyring::parse(&SecretString::from(text.clone())).unwrap(),
            text,
        )
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let (old, text) = ring(&["old"]);
        let sealed = old.seal("acme/auth_token", b"secret");
        let both = Keyring::parse(&SecretString::from(format!(
            "{},{text}",
            Keyring::generate("new").expose_secret()
        )))
        .unwrap();
        assert_eq!(
            both.open("acme/auth_token", &sealed.key_id, &sealed.sealed)
                .unwrap()
                .as_slice(),
            b"secret"
        );
        assert_eq!(both.seal("acme/auth_token", b"secret").key_id, "new");
        let (other, _) = ring(&["other"]);
        assert_eq!(
            other.open("x", "old", &sealed.sealed).unwrap_err(),
            OpenError::UnknownKey("old".to_owned())
        );
    }

    #[test]
    fn a_secret_opens_only_in_the_place_that_it_was_sealed_for() {
        let (ring, _) = ring(&["a"]);
        let mut sealed = ring.seal("acme/auth_token", b"secret");
        assert!(ring.open("evil/auth_token", "a", &sealed.sealed).is_err());
        sealed.sealed[30] ^= 1;
        assert!(ring.open("acme/auth_token", "a", &sealed.sealed).is_err());
        assert!(ring.open("acme/auth_token", "a", b"short").is_err());
    }

    #[test]
    fn an_invalid_key_is_named_by_its_position_and_not_shown() {
        let parse = |text: &str| Keyring::parse(&SecretString::from(text)).unwrap_err();
        assert_eq!(parse(""), KeysError::Empty);
        let good = Keyring::generate("a").expose_secret().to_owned();
        assert_eq!(
            parse(&format!("{good},b:c2VjcmV0")),
            KeysError::Malformed(2)
        );
        assert_eq!(
            parse(&format!("{good},{good}")),
            KeysError::DuplicateId("a".to_owned())
        );
    }

    #[test]
    fn hashes_depend_on_key_and_purpose() {
        let (ring, _) = ring(&["a", "b"]);
        let (id, hash) = ring.hash("identity", "x");
        assert_eq!(ring.hash_with(&id, "identity", "x").unwrap(), hash);
        assert_ne!(ring.hash_with(&id, "line", "x").unwrap(), hash);
        assert_ne!(ring.hash_with("b", "identity", "x").unwrap(), hash);
    }
}
