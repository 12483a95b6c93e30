//! Sealing of secrets, and keyed hashes.
//!
//! `VOICE_OTP_KEYS` is `id:base64 of 32 bytes[,…]`: the first key seals, all of them open. A key's id stands in the row
//! that it sealed. Rotate by adding the new key everywhere, then putting it first, and dropping the old one when no row
//! has it any more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The keys, the first of which seals.
#[derive(Clone)]
pub struct Keyring {
    first: Key,
    others: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
    hash: Zeroizing<[u8; 32]>,
}

/// Something sealed, and by which key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The key's id.
    pub key_id: String,
    /// The nonce, then the box.
    pub sealed: Vec<u8>,
}

/// Why `VOICE_OTP_KEYS` can't be used. Never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// There is none.
    #[error("there is no key; make one with: voice-otp keys new")]
    Empty,
    /// One isn't `id:base64 of 32 bytes`.
    #[error(
        "key {0} is not id:base64 of 32 bytes (an id is 1 to 32 of A-Z, a-z, 0-9, _ and -); make one with: voice-otp keys new"
    )]
    Malformed(usize),
    /// Two have one id.
    #[error("two keys have the id {0}")]
    Twice(String),
}

/// Why something can't be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It was sealed by a key that isn't here.
    #[error("sealed with key {0}, which VOICE_OTP_KEYS doesn't have here")]
    UnknownKey(String),
    /// The key is there, and it doesn't fit: the row was tampered with, or two keys had one id.
    #[error("can't be opened with key {0}: the row belongs elsewhere, or another key had this id")]
    Broken(String),
}

const NONCE_BYTES: usize = 24;

impl Keyring {
    /// Parses `VOICE_OTP_KEYS`.
    ///
    /// # Errors
    /// [`KeysError`] says which key is wrong, by its place.
    pub fn parse(text: &SecretString) -> Result<Self, KeysError> {
        let mut keys: Vec<Key> = Vec::new();
        let entries = text
            .expose_secret()
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty());
        for (place, entry) in entries.enumerate() {
            let key = Key::parse(entry).ok_or(KeysError::Malformed(place + 1))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeysError::Twice(key.id));
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

    /// A new key, as `VOICE_OTP_KEYS` has it.
    pub fn generate(id: &str) -> SecretString {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
        SecretString::from(format!("{id}:{}", STANDARD.encode(bytes.as_slice())))
    }

    /// The ids of all keys, the sealing one first.
    pub fn ids(&self) -> Vec<String> {
        self.keys().map(|key| key.id.clone()).collect()
    }

    /// Seals something with the first key. `place` says where it belongs: it opens nowhere else.
    pub fn seal(&self, place: &str, secret: &[u8]) -> Sealed {
        let nonce: [u8; NONCE_BYTES] = rand::rng().random();
        let payload = Payload {
            msg: secret,
            aad: place.as_bytes(),
        };
        // XChaCha20-Poly1305 fails only on messages of more than 256 GiB.
        let sealed = self
            .first
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .unwrap_or_default();
        Sealed {
            key_id: self.first.id.clone(),
            sealed: [nonce.as_slice(), &sealed].concat(),
        }
    }

    /// Opens something sealed.
    ///
    /// # Errors
    /// [`OpenError`] says whether the key is missing or doesn't fit.
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
        let broken = || OpenError::Broken(key_id.to_owned());
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or_else(broken)?;
        let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).map_err(|_| broken())?;
        let payload = Payload {
            msg: sealed,
            aad: place.as_bytes(),
        };
        key.cipher
            .decrypt(&XNonce::from(nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| broken())
    }

    /// A keyed hash by the first key, and that key's id. `what` keeps hashes of different things apart.
    pub fn hash(&self, what: &str, text: &str) -> (String, Vec<u8>) {
        (self.first.id.clone(), self.first.mac(what, text))
    }

    /// The keyed hash by the key of this id.
    pub fn hash_with(&self, key_id: &str, what: &str, text: &str) -> Option<Vec<u8>> {
        self.keys()
            .find(|key| key.id == key_id)
            .map(|key| key.mac(what, text))
    }

    /// The keyed hashes by every key: for finding what any of them hashed.
    pub fn hashes(&self, what: &str, text: &str) -> Vec<Vec<u8>> {
        self.keys().map(|key| key.mac(what, text)).collect()
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
            // The hashes have a key of their own.
            hash: Zeroizing::new(mac(bytes.as_slice(), "voice-otp keyed hash v1")),
        })
    }

    fn mac(&self, what: &str, text: &str) -> Vec<u8> {
        mac(self.hash.as_slice(), &format!("{what}\0{text}")).to_vec()
    }
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key) else {
        return [0; 32];
    };
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
    fn the_first_key_seals_and_all_open() {
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
        let (stranger, _) = ring(&["other"]);
        assert_eq!(
            stranger.open("x", "old", &sealed.sealed).unwrap_err(),
            OpenError::UnknownKey("old".to_owned())
        );
    }

    #[test]
    fn what_is_sealed_opens_only_where_it_belongs() {
        let (ring, _) = ring(&["a"]);
        let mut sealed = ring.seal("acme/auth_token", b"secret");
        assert!(ring.open("evil/auth_token", "a", &sealed.sealed).is_err());
        sealed.sealed[30] ^= 1;
        assert!(ring.open("acme/auth_token", "a", &sealed.sealed).is_err());
        assert!(ring.open("acme/auth_token", "a", b"short").is_err());
    }

    #[test]
    fn a_wrong_key_is_named_by_its_place_and_not_shown() {
        let parse = |text: &str| Keyring::parse(&SecretString::from(text)).unwrap_err();
        assert_eq!(parse(""), KeysError::Empty);
        let good = Keyring::generate("a").expose_secret().to_owned();
        assert_eq!(
            parse(&format!("{good},b:c2VjcmV0")),
            KeysError::Malformed(2)
        );
        assert_eq!(
            parse(&format!("{good},{good}")),
            KeysError::Twice("a".to_owned())
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
