//! A URL that Twilio requests: a status callback's, a detection's, or the one that gives a call its
//! `TwiML`.

use url::Url;

use crate::api_error::ApiError;
use crate::connection_overrides::ConnectionOverrides;
use crate::params::Params;

/// A URL that Twilio requests, with its connection overrides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    /// The URL as the client gave it, with its fragment.
    pub(crate) url: String,
    /// What the URL's fragment says.
    pub(crate) overrides: ConnectionOverrides,
}

impl Webhook {
    /// Reads and checks the URL in a request parameter, if the parameter is given. Loopback
    /// addresses pass, although Twilio could not reach them.
    ///
    /// # Errors
    /// 21205, with what is wrong.
    pub(crate) fn in_parameter(params: &Params, parameter: &str) -> Result<Option<Self>, ApiError> {
        let url = params.single(parameter)?;
        url.map(|url| Self::parse(parameter, url)).transpose()
    }

    fn parse(parameter: &str, url: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| {
            ApiError::bad_request(21205, format!("{parameter} is not a valid URL: {why}"))
        };
        let parsed = Url::parse(url).map_err(|_| invalid("it must be absolute"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid("it must be http or https"));
        }
        match parsed.host_str() {
            None | Some("") => return Err(invalid("it has no host")),
            Some(host) if host.contains('_') => return Err(invalid("its host has an underscore")),
            Some(_) => {}
        }
        let overrides = ConnectionOverrides::of(url).map_err(|why| invalid(&why))?;
        Ok(Self {
            url: url.to_owned(),
            overrides,
        })
    }
}
