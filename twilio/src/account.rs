//! What Twilio says of an account: whether its credentials work, its numbers, its balance, and where it may call.
//!
//! By Twilio's own description every field may be null, so each is optional here.

use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use voice_otp::failure::CallFailure;
use voice_otp::settings::{Region, VoiceSettings};
use voice_otp_schemas::PhoneNumber;
use voice_otp_schemas::phone::Country;

use crate::client::{Answer, Client, authorized};

/// An account, as Twilio has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// `active`, `suspended` or `closed`.
    pub status: Option<String>,
    /// `Trial` or `Full`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The account itself, or the one that a subaccount belongs to.
    pub owner_account_sid: Option<String>,
}

/// An account's balance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Balance {
    /// A decimal number.
    pub balance: Option<String>,
    /// ISO 4217.
    pub currency: Option<String>,
}

/// Whether an account may call from a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// It is the account's own, and can make calls.
    Owned,
    /// It is the account's own, and can't make calls.
    WithoutVoice,
    /// It belongs to somebody else, and the account has proven that it may show it.
    Verified,
    /// Neither.
    NotOwned,
}

/// Where an account may call, by Twilio's geographic permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DialingPermission {
    /// Ordinary numbers of the country.
    pub low_risk_numbers_enabled: Option<bool>,
    /// Premium and shared-cost numbers.
    pub high_risk_special_numbers_enabled: Option<bool>,
    /// Numbers known for toll fraud.
    pub high_risk_tollfraud_numbers_enabled: Option<bool>,
}

impl Client {
    /// The account, by its SID and an auth token, in a region: which may be another than the settings say.
    ///
    /// # Errors
    /// [`CallFailure`]: of class credentials if Twilio refuses them.
    pub async fn account(
        &self,
        settings: &VoiceSettings,
        token: &SecretString,
        region: Option<&Region>,
    ) -> Result<Account, CallFailure> {
        let sid = settings.account_sid.as_str();
        let request = self.request(
            Method::GET,
            "api",
            &format!("/2010-04-01/Accounts/{sid}.json"),
            region,
        )?;
        Answer::of(request.basic_auth(sid, Some(token.expose_secret())))
            .await?
            .parse()
    }

    /// Whether Twilio takes the credentials that calls are placed with.
    ///
    /// # Errors
    /// As for [`account`](Self::account).
    pub async fn may_list_calls(&self, settings: &VoiceSettings) -> Result<(), CallFailure> {
        let request = self.ask(Method::GET, settings, "Calls")?;
        Answer::of(request.query(&[("PageSize", "1")]))
            .await
            .map(drop)
    }

    /// The account's balance. Twilio has none for subaccounts: they share their owner's.
    ///
    /// # Errors
    /// As for [`account`](Self::account).
    pub async fn balance(&self, settings: &VoiceSettings) -> Result<Balance, CallFailure> {
        Answer::of(self.ask(Method::GET, settings, "Balance")?)
            .await?
            .parse()
    }

    /// Whether the account may call from a number.
    ///
    /// # Errors
    /// As for [`account`](Self::account).
    pub async fn ownership(
        &self,
        settings: &VoiceSettings,
        from: &PhoneNumber,
    ) -> Result<Ownership, CallFailure> {
        let query = [("PhoneNumber", from.expose()), ("PageSize", "20")];
        let numbers: Numbers = Answer::of(
            self.ask(Method::GET, settings, "IncomingPhoneNumbers")?
                .query(&query),
        )
        .await?
        .parse()?;
        // Twilio matches parts of numbers, too.
        if let Some(number) = numbers
            .incoming_phone_numbers
            .iter()
            .find(|number| number.is(from))
        {
            // Where Twilio doesn't say, calling shows it.
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
        let callers: CallerIds = Answer::of(
            self.ask(Method::GET, settings, "OutgoingCallerIds")?
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

    /// Whether the account may call a country. Twilio counts Canada with the United States.
    ///
    /// # Errors
    /// As for [`account`](Self::account).
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
        let request = self.request(Method::GET, "voice", &path, settings.region.as_ref())?;
        Answer::of(authorized(request, settings)).await?.parse()
    }
}

#[derive(Deserialize)]
struct Numbers {
    incoming_phone_numbers: Vec<Number>,
}

#[derive(Deserialize)]
struct CallerIds {
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
