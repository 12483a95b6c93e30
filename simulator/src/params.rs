//! The names and values of a form or query, read strictly: Twilio ignores names that it doesn't
//! know, and so hides misspelt parameters.

use axum::http::{HeaderMap, StatusCode, header};

use crate::api_error::ApiError;

/// Decoded names and values, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// 415 if the content type isn't a form's.
    pub(crate) fn of_form(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let declared = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mime = declared.split(';').next().unwrap_or_default().trim();
        if !mime.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(ApiError {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                ..ApiError::strict("the body must be application/x-www-form-urlencoded")
            });
        }
        Ok(Self::decoded(body))
    }

    /// Reads the query of a GET.
    pub(crate) fn of_query(query: Option<&str>) -> Self {
        Self::decoded(query.unwrap_or_default().as_bytes())
    }

    fn decoded(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// Refuses names that Twilio doesn't know, and those that the simulator doesn't support.
    pub(crate) fn check_names(
        &self,
        supported: &[&str],
        unsupported: &[&str],
    ) -> Result<(), ApiError> {
        for (name, _) in &self.0 {
            let name = name.as_str();
            if unsupported.contains(&name) {
                return Err(ApiError::strict(format!(
                    "the simulator does not support the parameter {name}"
                )));
            }
            if !supported.contains(&name) {
                return Err(ApiError::bad_request(
                    20001,
                    format!("unknown parameter {name}: Twilio would ignore it"),
                ));
            }
        }
        Ok(())
    }

    /// The value of a parameter that may be given once.
    pub(crate) fn single(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(ApiError::strict(format!(
                "the parameter {name} is given more than once"
            )));
        }
        Ok(first)
    }

    /// Every value of a parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that is a whole number within bounds.
    pub(crate) fn number(
        &self,
        name: &str,
        bounds: std::ops::RangeInclusive<u32>,
        error: impl FnOnce(String) -> ApiError,
    ) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.single(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(error(format!(
                "{name} is a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            ))),
        }
    }

    /// The value of a parameter that is an HTTP method.
    pub(crate) fn method(&self, name: &str) -> Result<Option<&str>, ApiError> {
        self.one_of(name, &["GET", "POST"], |text| {
            ApiError::bad_request(21209, text)
        })
    }

    /// The value of a parameter that is one of a few words.
    pub(crate) fn one_of<'a>(
        &'a self,
        name: &str,
        words: &[&str],
        error: impl FnOnce(String) -> ApiError,
    ) -> Result<Option<&'a str>, ApiError> {
        match self.single(name)? {
            Some(word) if !words.contains(&word) => {
                Err(error(format!("{name} is one of {}", words.join(", "))))
            }
            word => Ok(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_content_type_of_a_form_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            Params::of_form(&headers, b"a=b").unwrap_err().status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        assert_eq!(
            Params::of_form(&headers, b"{}").unwrap_err().status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, form);
        let params = Params::of_form(&headers, b"To=%2B1415&Event=a&Event=b").unwrap();
        assert_eq!(params.single("To").unwrap(), Some("+1415"));
        assert_eq!(params.all("Event").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(params.single("From").unwrap(), None);
        assert!(params.single("Event").is_err());
    }

    #[test]
    fn unknown_names_are_refused() {
        let params = Params::of_query(Some("To=1&to=2"));
        assert!(params.check_names(&["To", "to"], &[]).is_ok());
        assert_eq!(
            params.check_names(&["To"], &[]).unwrap_err().code,
            Some(20001)
        );
        assert_eq!(params.check_names(&["To"], &["to"]).unwrap_err().code, None);
    }

    #[test]
    fn numbers_and_words_are_kept_within_bounds() {
        let params = Params::of_query(Some("Timeout=600&Method=PUT"));
        assert_eq!(
            params.number("Timeout", 1..=600, ApiError::strict),
            Ok(Some(600))
        );
        assert!(params.number("Timeout", 1..=599, ApiError::strict).is_err());
        assert!(params.number("Method", 1..=600, ApiError::strict).is_err());
        assert!(
            params
                .one_of("Method", &["GET", "POST"], ApiError::strict)
                .is_err()
        );
        assert_eq!(
            params.one_of("Method", &["PUT"], ApiError::strict),
            Ok(Some("PUT"))
        );
    }
}
