//! The simulator's accounts.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use voice_otp_schemas::PhoneNumber;

/// A Twilio account or subaccount. `Debug` shows no secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// `AC` and 32 hexadecimal digits.
    pub sid: String,
    /// The primary auth token: it signs in, and it signs callbacks.
    pub auth_token: String,
    /// API keys that may sign in for this account. They never sign a callback.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
    /// The account's own numbers, in E.164. A `From` that is neither one of them nor a caller ID is
    /// refused with 21210.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Those of its numbers that can't make calls; as `From` they are refused with 21210, too.
    #[serde(default)]
    pub numbers_without_voice: Vec<String>,
    /// Numbers of other owners that the account has verified as caller IDs. `From` may be one.
    #[serde(default)]
    pub caller_ids: Vec<String>,
    /// Countries (ISO 3166-1 alpha-2) that the geographic permissions block: calls there are
    /// refused with 21215.
    #[serde(default)]
    pub blocked_countries: Vec<String>,
    /// Countries in which the geographic permissions allow high-risk numbers.
    #[serde(default)]
    pub risky_countries: Vec<String>,
    /// The region that the auth token and the keys belong to; in other regions they are wrong. The
    /// header `X-Forwarded-Host` says which of Twilio's hosts a request is for; without it, the
    /// region isn't checked.
    #[serde(default = "us1")]
    pub region: String,
    /// How many queued calls are dialled per second (default: 1); fractions are allowed. Further
    /// calls are queued, not refused.
    #[serde(default = "one")]
    pub calls_per_second: f64,
    /// Whether it is a trial account.
    #[serde(default)]
    pub trial: bool,
    /// Whether it is suspended: requests are refused with 20003, as with wrong credentials, except
    /// for reading the account itself.
    #[serde(default)]
    pub suspended: bool,
    /// The balance of `Balance.json` (default: 100.00). Calls don't change it.
    #[serde(default = "hundred")]
    pub balance: String,
    /// The currency of the balance and of prices, ISO 4217 (default: USD).
    #[serde(default = "dollars")]
    pub currency: String,
}

/// An API key of an account. `Debug` shows no secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// `SK` and 32 hexadecimal digits.
    pub sid: String,
    /// The key's secret.
    pub secret: String,
}

fn one() -> f64 {
    1.0
}

fn us1() -> String {
    "us1".to_owned()
}

fn hundred() -> String {
    "100.00".to_owned()
}

fn dollars() -> String {
    "USD".to_owned()
}

impl Account {
    /// An account with the defaults of `POST /simulator/accounts`: no API keys, no numbers, one
    /// call per second.
    pub fn new(sid: impl Into<String>, auth_token: impl Into<String>) -> Self {
        Self {
            sid: sid.into(),
            auth_token: auth_token.into(),
            api_keys: Vec::new(),
            numbers: Vec::new(),
            numbers_without_voice: Vec::new(),
            caller_ids: Vec::new(),
            blocked_countries: Vec::new(),
            risky_countries: Vec::new(),
            region: us1(),
            trial: false,
            calls_per_second: one(),
            suspended: false,
            balance: hundred(),
            currency: dollars(),
        }
    }

    /// Whether calls can come from a number.
    pub(crate) fn may_call_from(&self, number: &str) -> bool {
        let has = |numbers: &[String]| numbers.iter().any(|has| has == number);
        (has(&self.numbers) && !has(&self.numbers_without_voice)) || has(&self.caller_ids)
    }

    /// Whether the geographic permissions let a number be called.
    pub(crate) fn may_call(&self, number: &str) -> bool {
        let country = PhoneNumber::parse(number)
            .ok()
            .and_then(|number| number.country());
        country.is_none_or(|country| {
            !self
                .blocked_countries
                .iter()
                .any(|blocked| blocked == country.as_str())
        })
    }

    /// Checks the account.
    ///
    /// # Errors
    /// The first mistake, in words.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        let sid = self.sid.strip_prefix("AC");
        if !sid.is_some_and(|tail| {
            tail.len() == 32 && tail.bytes().all(|byte| byte.is_ascii_hexdigit())
        }) {
            return Err("sid is AC and 32 hexadecimal digits");
        }
        if self.auth_token.is_empty() || self.api_keys.iter().any(|key| key.secret.is_empty()) {
            return Err("an auth token or key secret isn't empty");
        }
        if !self.calls_per_second.is_finite() || self.calls_per_second <= 0.0 {
            return Err("calls_per_second is more than 0");
        }
        Ok(())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("sid", &self.sid)
            .field("api_keys", &self.api_keys)
            .field("numbers", &self.numbers)
            .field("calls_per_second", &self.calls_per_second)
            .field("suspended", &self.suspended)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("sid", &self.sid)
            .finish_non_exhaustive()
    }
}

/// All accounts, by SID, with their API keys.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    accounts: HashMap<String, Arc<Account>>,
    /// SIDs of accounts, by the SIDs of their API keys.
    keys: HashMap<String, String>,
}

impl Accounts {
    /// Adds an account, in place of one with the same SID.
    pub(crate) fn put(&mut self, account: Account) {
        if let Some(old) = self.accounts.remove(&account.sid) {
            for key in &old.api_keys {
                self.keys.remove(&key.sid);
            }
        }
        for key in &account.api_keys {
            self.keys.insert(key.sid.clone(), account.sid.clone());
        }
        self.accounts.insert(account.sid.clone(), Arc::new(account));
    }

    pub(crate) fn get(&self, sid: &str) -> Option<Arc<Account>> {
        self.accounts.get(sid).map(Arc::clone)
    }

    /// The account that these credentials belong to. `user` is the SID of an account or a key.
    pub(crate) fn authenticate(&self, user: &str, password: &str) -> Option<Arc<Account>> {
        let account = self
            .accounts
            .get(self.keys.get(user).map_or(user, String::as_str))?;
        let secret = if account.sid == user {
            account.auth_token.as_str()
        } else {
            account
                .api_keys
                .iter()
                .find(|key| key.sid == user)?
                .secret
                .as_str()
        };
        let right: bool = secret.as_bytes().ct_eq(password.as_bytes()).into();
        (right && !secret.is_empty()).then(|| Arc::clone(account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        let mut account = Account::new("AC00000000000000000000000000000001", "token");
        account.api_keys.push(ApiKey {
            sid: "SK1".to_owned(),
            secret: "secret".to_owned(),
        });
        account
    }

    #[test]
    fn the_auth_token_or_a_key_authenticates() {
        let mut accounts = Accounts::default();
        accounts.put(account());
        assert!(
            accounts
                .authenticate("AC00000000000000000000000000000001", "token")
                .is_some()
        );
        assert!(accounts.authenticate("SK1", "secret").is_some());
        for (user, password) in [
            ("SK1", "token"),
            ("AC00000000000000000000000000000001", "secret"),
            ("SK2", "secret"),
            ("", ""),
        ] {
            assert!(accounts.authenticate(user, password).is_none(), "{user}");
        }
    }

    #[test]
    fn a_replaced_account_loses_its_old_keys() {
        let mut accounts = Accounts::default();
        accounts.put(account());
        accounts.put(Account::new(
            "AC00000000000000000000000000000001",
            "new token",
        ));
        assert!(accounts.authenticate("SK1", "secret").is_none());
        assert!(
            accounts
                .authenticate("AC00000000000000000000000000000001", "new token")
                .is_some()
        );
    }

    #[test]
    fn debug_output_shows_neither_token_nor_secret() {
        let shown = format!("{:?}", account());
        assert!(
            !shown.contains("token\"") && !shown.contains("secret\""),
            "{shown}"
        );
    }

    #[test]
    fn an_account_in_json_needs_only_sid_and_token() {
        let account: Account = serde_json::from_str(
            r#"{"sid": "AC00000000000000000000000000000001", "auth_token": "t"}"#,
        )
        .unwrap();
        assert!((account.calls_per_second - 1.0).abs() < f64::EPSILON);
        assert_eq!(
            (account.balance.as_str(), account.currency.as_str()),
            ("100.00", "USD")
        );
        assert_eq!(account.validate(), Ok(()));
        assert!(Account::new("AC1", "t").validate().is_err());
    }
}
