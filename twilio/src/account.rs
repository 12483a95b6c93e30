//! What Twilio reports about an account: its status, its balance, its numbers and its geographic
//! permissions.
//!
//! By Twilio's `OpenAPI` description (<https://github.com/twilio/twilio-oai>) every field may be
//! null, so all are optional here.

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use voice_otp::call::failure::CallFailure;
use voice_otp::settings::{Region, VoiceSettings};
use voice_otp_schemas::PhoneNumber;
use voice_otp_schemas::phone::Country;

use crate::client::Client;
use crate::client::api::with_credentials;
use crate::client::response::ApiResponse;

/// Twilio's Account resource (<https://www.twilio.com/docs/iam/api/account>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// `active`, `suspended` or `closed`.
    pub status: Option<String>,
    /// `Trial` or `Full`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The SID of the parent account; of the account itself if it isn't a subaccount.
    pub owner_account_sid: Option<String>,
}

/// An account's balance (<https://www.twilio.com/docs/usage/api/balance>).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Balance {
    /// The amount, a decimal number.
    pub balance: Option<String>,
    /// The currency, ISO 4217.
    pub currency: Option<String>,
}

/// Whether an account may call from a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The account owns it, and it can make calls.
    Owned,
    /// The account owns it, and it can't make calls.
    WithoutVoice,
    /// Another party owns it, and the account has verified it as a caller ID.
    Verified,
    /// The account neither owns nor has verified it.
    NotOwned,
}

/// Twilio's geographic permissions of an account for a country
/// (<https://www.twilio.com/docs/voice/api/dialingpermissions-country-resource>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DialingPermission {
    /// Whether ordinary numbers may be called.
    pub low_risk_numbers_enabled: Option<bool>,
    /// Whether premium and shared-cost numbers may be called.
    pub high_risk_special_numbers_enabled: Option<bool>,
    /// Whether numbers known for toll fraud may be called.
    pub high_risk_tollfraud_numbers_enabled: Option<bool>,
}

impl Client {
    /// Reads the tenant's account with an auth token in a region; both may differ from the
    /// settings.
    ///
    /// # Errors
    /// [`CallFailure`], of the class for credentials if Twilio rejects them.
    pub async fn account(
        &self,
        settings: &VoiceSettings,
        token: &SecretString,
        region: Option<&Region>,
    ) -> Result<Account, CallFailure> {
        let sid = settings.account_sid.as_str();
        let request = self.api.request(
            Method::GET,
            "api",
            &format!("/2010-04-01/Accounts/{sid}.json"),
            region,
        )?;
        ApiResponse::of(request.basic_auth(sid, Some(token.expose_secret())))
            .await?
            .parse()
    }

    /// Lists one call, to check the credentials that calls are placed with.
    ///
    /// # Errors
    /// [`CallFailure`], of the class for credentials if Twilio rejects them.
    pub async fn verify_call_access(&self, settings: &VoiceSettings) -> Result<(), CallFailure> {
        let request = self.api.account_request(Method::GET, settings, "Calls")?;
        ApiResponse::of(request.query(&[("PageSize", "1")]))
            .await
            .map(drop)
    }

    /// Reads the account's balance. A subaccount has none, since it shares its parent's: Twilio
    /// answers 404.
    ///
    /// # Errors
    /// [`CallFailure`], of the class for credentials if Twilio rejects them.
    pub async fn balance(&self, settings: &VoiceSettings) -> Result<Balance, CallFailure> {
        ApiResponse::of(self.api.account_request(Method::GET, settings, "Balance")?)
            .await?
            .parse()
    }

    /// Finds out whether the account may call from a number.
    ///
    /// # Errors
    /// [`CallFailure`], of the class for credentials if Twilio rejects them.
    pub async fn ownership(
        &self,
        settings: &VoiceSettings,
        from: &PhoneNumber,
    ) -> Result<Ownership, CallFailure> {
        let query = [("PhoneNumber", from.expose()), ("PageSize", "20")];
        let numbers: NumberList = ApiResponse::of(
            self.api
                .account_request(Method::GET, settings, "IncomingPhoneNumbers")?
                .query(&query),
        )
        .await?
        .parse()?;
        // The filter matches parts of numbers, too.
        if let Some(number) = numbers
            .incoming_phone_numbers
            .iter()
            .find(|number| number.is(from))
        {
            // If Twilio doesn't report it, assume that the number can make calls.
            let voice = number
                .capabilities
                .as_ref()
                .and_then(|capabilities| capabilities.voice)
                .unwrap_or(true);
            return Ok(if voice {
                Ownership::Owned
            } else {
                Ownership::WithoutVoice
            });
        }
        let callers: CallerIdList = ApiResponse::of(
            self.api
                .account_request(Method::GET, settings, "OutgoingCallerIds")?
                .query(&query),
        )
        .await?
        .parse()?;
        let verified = callers
            .outgoing_caller_ids
            .iter()
            .any(|number| number.is(from));
        Ok(if verified {
            Ownership::Verified
        } else {
            Ownership::NotOwned
        })
    }

    /// Reads the account's geographic permissions for a country. Twilio has one entry for the
    /// United States and Canada.
    ///
    /// # Errors
    /// [`CallFailure`], of the class for credentials if Twilio rejects them.
    pub async fn dialing_permission(
        &self,
        settings: &VoiceSettings,
        country: Country,
    ) -> Result<DialingPermission, CallFailure> {
        let country = if country.as_str() == "CA" {
            "US"
        } else {
            country.as_str()
        };
        let path = format!("/v1/DialingPermissions/Countries/{country}");
        let request = self
            .api
            .request(Method::GET, "voice", &path, settings.region.as_ref())?;
        ApiResponse::of(with_credentials(request, settings))
            .await?
            .parse()
    }
}

#[derive(Deserialize)]
struct NumberList {
    incoming_phone_numbers: Vec<Number>,
}

#[derive(Deserialize)]
struct CallerIdList {
    outgoing_caller_ids: Vec<Number>,
}

#[derive(Deserialize)]
struct Number {
    phone_number: Option<String>,
    capabilities: Option<Capabilities>,
}

#[derive(Deserialize)]
struct Capabilities {
    voice: Option<bool>,
}

impl Number {
    fn is(&self, number: &PhoneNumber) -> bool {
        self.phone_number.as_deref() == Some(number.expose())
    }
}
