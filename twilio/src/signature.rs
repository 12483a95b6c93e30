//! Twilio's request signatures, which prove that a request comes from Twilio
//! (<https://www.twilio.com/docs/usage/security#validating-requests>).
//!
//! Twilio signs with the account's *primary auth token*, never with an API key; for a subaccount,
//! with the subaccount's token. The signature is an HMAC-SHA1 over the URL without its fragment,
//! followed by the names and values of the form, sorted by name. How Twilio writes the URL differs
//! by product, scheme and age of the back end, so [`verify`] tries every form that Twilio is known
//! to sign. This doesn't make a signature easier to forge.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

/// The signature of a form POST to `url`, as in the header `X-Twilio-Signature`.
///
/// The URL is signed as it is, without its fragment; [`as_signed`] gives the form that Twilio's
/// voice product signs. `params` are the decoded names and values of the body; a GET has none. If a
/// name occurs several times, its distinct values are signed in sorted order, as in Twilio's own
/// libraries.
pub fn sign(auth_token: &str, url: &str, params: &[(String, String)]) -> String {
    mac(auth_token, without_fragment(url), &flattened(params))
}

/// Whether `signature` signs this URL and form with one of the tokens.
///
/// `url` is the URL that Twilio was given, from the configuration and not from a `Host` header.
/// During a rotation, pass both of the account's tokens; an empty token never matches. The time
/// that this takes doesn't depend on how much of a wrong signature is right.
pub fn verify(
    auth_tokens: &[&str],
    url: &str,
    params: &[(String, String)],
    signature: &str,
) -> bool {
    let fields = flattened(params);
    let candidates = candidates(url);
    let mut found = Choice::from(0);
    for token in auth_tokens.iter().filter(|token| !token.is_empty()) {
        for candidate in &candidates {
            found |= mac(token, candidate, &fields)
                .as_bytes()
                .ct_eq(signature.as_bytes());
        }
    }
    found.into()
}

/// Whether `signature` signs this URL and JSON body. For JSON, Twilio adds the body's SHA-256 to
/// the query as `bodySHA256`, and signs only the URL.
///
/// The parameter may occur twice, as Twilio has been seen to send it. Every occurrence must match.
pub fn verify_json(auth_tokens: &[&str], url: &str, body: &[u8], signature: &str) -> bool {
    has_body_hash(without_fragment(url), body) && verify(auth_tokens, url, &[], signature)
}

/// A webhook's URL in the form that Twilio's voice product signs: without fragment and user
/// information, and with HTTPS also without the port.
pub fn as_signed(url: &str) -> String {
    let url = without_fragment(url);
    match UrlParts::of(url) {
        Some(parts) if parts.is_https() => parts.with(None, None),
        Some(parts) => parts.with(None, parts.port),
        None => url.to_owned(),
    }
}

/// HMAC-SHA1 over the URL and the flattened form, in base64.
fn mac(auth_token: &str, url: &str, fields: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC accepts a key of any length")]
    let mut mac = Hmac::<Sha1>::new_from_slice(auth_token.as_bytes()).expect("a key of any length");
    mac.update(url.as_bytes());
    mac.update(fields.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// The names and values without separators, sorted by name and then by value, each pair once.
fn flattened(params: &[(String, String)]) -> String {
    let mut by_name: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, value) in params {
        by_name.entry(name).or_default().insert(value);
    }
    let mut flat = String::new();
    for (name, values) in by_name {
        for value in values {
            flat.push_str(name);
            flat.push_str(value);
        }
    }
    flat
}

/// Every form of the URL that Twilio may have signed.
fn candidates(url: &str) -> Vec<String> {
    let url = without_fragment(url);
    let mut all = vec![url.to_owned()];
    if let Some(parts) = UrlParts::of(url) {
        for port in parts.ports() {
            all.push(parts.with(parts.user, port));
            all.push(parts.with(None, port));
        }
    }
    let legacy: Vec<String> = all
        .iter()
        .filter_map(|url| with_legacy_query(url))
        .collect();
    all.extend(legacy);
    all.sort_unstable();
    all.dedup();
    all
}

/// The URL as an older encoder of Twilio's writes its query, if that differs: with `'` as `%27`.
fn with_legacy_query(url: &str) -> Option<String> {
    let (path, query) = url.split_once('?')?;
    query
        .contains('\'')
        .then(|| format!("{path}?{}", query.replace('\'', "%27")))
}

fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(url, _)| url)
}

/// Whether the URL has the SHA-256 of this body in its query, and no other hash.
fn has_body_hash(url: &str, body: &[u8]) -> bool {
    let hash = <Sha256 as sha2::Digest>::digest(body);
    let hex: String = hash
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 0xf])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect();
    let (_, query) = url.split_once('?').unwrap_or_default();
    let mut named = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("bodySHA256="))
        .peekable();
    named.peek().is_some() && named.all(|value| value.as_bytes().ct_eq(hex.as_bytes()).into())
}

/// The parts of a URL, byte for byte: a parser that normalizes would break the signature.
struct UrlParts<'a> {
    scheme: &'a str,
    /// `user:pass` before the `@`.
    user: Option<&'a str>,
    host: &'a str,
    port: Option<&'a str>,
    /// Path and query.
    rest: &'a str,
}

impl<'a> UrlParts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, after) = url.split_once("://")?;
        let (authority, rest) = after.split_at(after.find(['/', '?']).unwrap_or(after.len()));
        let (user, server) = match authority.rsplit_once('@') {
            Some((user, server)) => (Some(user), server),
            None => (None, authority),
        };
        // A colon inside the brackets of an IPv6 address doesn't start a port.
        let (host, port) = match server.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (server, None),
        };
        Some(Self {
            scheme,
            user,
            host,
            port,
            rest,
        })
    }

    fn is_https(&self) -> bool {
        self.scheme.eq_ignore_ascii_case("https")
    }

    fn standard_port(&self) -> Option<&'static str> {
        if self.is_https() {
            Some("443")
        } else if self.scheme.eq_ignore_ascii_case("http") {
            Some("80")
        } else {
            None
        }
    }

    /// The ports with which Twilio may have signed this URL.
    fn ports(&self) -> [Option<&'a str>; 2] {
        let standard = self.standard_port();
        if self.port.is_none() || self.port == standard {
            [None, standard]
        } else if self.is_https() {
            [None, self.port]
        } else {
            [self.port, self.port]
        }
    }

    /// The URL with another user information and port.
    fn with(&self, user: Option<&str>, port: Option<&str>) -> String {
        let Self {
            scheme, host, rest, ..
        } = self;
        let (user, at) = user.map_or(("", ""), |user| (user, "@"));
        let (colon, port) = port.map_or(("", ""), |port| (":", port));
        format!("{scheme}://{user}{at}{host}{colon}{port}{rest}")
    }
}

#[cfg(test)]
mod tests;
