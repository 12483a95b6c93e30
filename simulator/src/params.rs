//! The names and values of a form or query, read strictly: Twilio ignores what it doesn't know, and thereby hides
//! misspelt parameters.

use axum::http::{HeaderMap, StatusCode, header};

use super::refusal::Refusal;

/// Decoded names and values, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// The body of a POST.
    ///
    /// # Errors
    /// 415 when the body isn't declared as a form.
    pub(crate) fn of_form(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let declared = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let mime = declared.split(';').next().unwrap_or_default().trim();
        if !mime.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                ..Refusal::strict("the body must be application/x-www-form-urlencoded")
            });
        }
        Ok(Self::decoded(body))
    }

    /// The query of a GET.
    pub(crate) fn of_query(query: Option<&str>) -> Self {
        Self::decoded(query.unwrap_or_default().as_bytes())
    }

    fn decoded(encoded: &[u8]) -> Self {
        Self(form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// Refuses names that Twilio doesn't know, and those that it knows and the simulator doesn't play.
    pub(crate) fn only(&self, played: &[&str], known: &[&str]) -> Result<(), Refusal> {
        for (name, _) in &self.0 {
            let name = name.as_str();
            if known.contains(&name) {
                return Err(Refusal::strict(format!(
                    "the simulator does not play the parameter {name}"
                )));
            }
            if !played.contains(&name) {
                return Err(Refusal::bad(
                    20001,
                    format!("unknown parameter {name}: Twilio would ignore it"),
                ));
            }
        }
        Ok(())
    }

    /// The value of a name that comes at most once.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(Refusal::strict(format!(
                "the parameter {name} comes more than once"
            )));
        }
        Ok(first)
    }

    /// Every value of a name.
    pub(crate) fn all(&self, wanted: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }

    /// The value of a name as a whole number within bounds.
    pub(crate) fn number(
        &self,
        name: &str,
        bounds: std::ops::RangeInclusive<u32>,
        refusal: impl FnOnce(String) -> Refusal,
    ) -> Result<Option<u32>, Refusal> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(refusal(format!(
                "{name} is a whole number from {} to {}",
                bounds.start(),
                bounds.end()
            ))),
        }
    }

    /// The value of a name as one of a few words.
    pub(crate) fn word<'a>(
        &'a self,
        name: &str,
        words: &[&str],
        refusal: impl FnOnce(String) -> Refusal,
    ) -> Result<Option<&'a str>, Refusal> {
        match self.one(name)? {
            Some(word) if !words.contains(&word) => {
                Err(refusal(format!("{name} is one of {}", words.join(", "))))
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
    fn only_a_declared_form_is_read() {
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
        assert_eq!(params.one("To").unwrap(), Some("+1415"));
        assert_eq!(params.all("Event").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(params.one("From").unwrap(), None);
        assert!(params.one("Event").is_err());
    }

    #[test]
    fn unknown_names_are_refused() {
        let params = Params::of_query(Some("To=1&to=2"));
        assert!(params.only(&["To", "to"], &[]).is_ok());
        assert_eq!(params.only(&["To"], &[]).unwrap_err().code, Some(20001));
        assert_eq!(params.only(&["To"], &["to"]).unwrap_err().code, None);
    }

    #[test]
    fn numbers_and_words_are_kept_within_bounds() {
        let params = Params::of_query(Some("Timeout=600&Method=PUT"));
        assert_eq!(
            params.number("Timeout", 1..=600, Refusal::strict),
            Ok(Some(600))
        );
        assert!(params.number("Timeout", 1..=599, Refusal::strict).is_err());
        assert!(params.number("Method", 1..=600, Refusal::strict).is_err());
        assert!(
            params
                .word("Method", &["GET", "POST"], Refusal::strict)
                .is_err()
        );
        assert_eq!(
            params.word("Method", &["PUT"], Refusal::strict),
            Ok(Some("PUT"))
        );
    }
}
