//! Requests to Twilio's REST API.

use reqwest::{Method, RequestBuilder, Url};
use secrecy::ExposeSecret as _;
use voice_otp::call::failure::CallFailure;
use voice_otp::settings::{Region, VoiceSettings};

use super::response::internal_failure;

/// Builds requests to Twilio.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(super) http: reqwest::Client,
    /// The simulator or a proxy, in place of Twilio's hosts.
    pub(super) base_url: Option<Url>,
}

impl Api {
    /// A request for a resource of the tenant's account: `Calls`, or a path below it.
    pub(crate) fn account_request(
        &self,
        method: Method,
        settings: &VoiceSettings,
        resource: &str,
    ) -> Result<RequestBuilder, CallFailure> {
        let path = format!(
            "/2010-04-01/Accounts/{}/{resource}.json",
            settings.account_sid
        );
        let request = self.request(method, "api", &path, settings.region.as_ref())?;
        Ok(with_credentials(request, settings))
    }

    /// A request for the next page of a list, by the path and query that Twilio gives.
    pub(super) fn next_page_request(
        &self,
        settings: &VoiceSettings,
        uri: &str,
    ) -> Result<RequestBuilder, CallFailure> {
        // The request carries the credentials, so it must not go anywhere else.
        if !uri.starts_with("/2010-04-01/Accounts/") {
            return Err(internal_failure(
                "the URI of the next page is not one of Twilio's accounts API",
            ));
        }
        let request = self.request(Method::GET, "api", uri, settings.region.as_ref())?;
        Ok(with_credentials(request, settings))
    }

    /// A request to one of Twilio's products (`api`, `voice`) in a region, without credentials.
    /// Regional hosts are `{product}.{edge}.{region}.twilio.com`
    /// (<https://www.twilio.com/docs/global-infrastructure>).
    pub(crate) fn request(
        &self,
        method: Method,
        product: &str,
        path: &str,
        region: Option<&Region>,
    ) -> Result<RequestBuilder, CallFailure> {
        let host = match region {
            Some(region) => format!("{product}.{region}.twilio.com"),
            None => format!("{product}.twilio.com"),
        };
        let base = self
            .base_url
            .as_ref()
            .map(|base| base.as_str().trim_end_matches('/'));
        let url = base.map_or_else(
            || format!("https://{host}{path}"),
            |base| format!("{base}{path}"),
        );
        let url = Url::parse(&url).map_err(|_| internal_failure("the Twilio URL is not valid"))?;
        let request = self.http.request(method, url);
        // Tells a simulator or proxy which of Twilio's hosts the request is for.
        Ok(if base.is_some() {
            request.header("x-forwarded-host", host)
        } else {
            request
        })
    }

    /// A POST of a form to any URL.
    pub(crate) fn post_form(&self, url: &str, params: &[(String, String)]) -> RequestBuilder {
        self.http.post(url).form(params)
    }
}

/// Adds the credentials with which the tenant's calls are placed: the API key if there is one, else
/// the auth token.
pub(crate) fn with_credentials(
    request: RequestBuilder,
    settings: &VoiceSettings,
) -> RequestBuilder {
    match &settings.credentials.api_key {
        Some(key) => request.basic_auth(key.sid.as_str(), Some(key.secret.expose_secret())),
        None => request.basic_auth(
            settings.account_sid.as_str(),
            Some(settings.credentials.auth_token.expose_secret()),
        ),
    }
}
