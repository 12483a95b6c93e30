//! Requests of browsers: the session and submitted forms.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::response::ErrorPage;
use crate::access::Principal;
use crate::problem::Problem;
use crate::state::Console;

/// The owner of the session. Without a valid one, browsers are sent to the sign-in page.
pub(super) struct SignedIn(pub(super) Principal);

impl FromRequestParts<Arc<Console>> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Response> {
        match Principal::authenticate(console, parts).await {
            Ok(Some(principal)) => Ok(Self(principal)),
            Ok(None) if parts.method == Method::GET => {
                Err(Redirect::to("/sign-in").into_response())
            }
            Ok(None) => Err(ErrorPage(Problem::unauthorized()).into_response()),
            Err(problem) => Err(ErrorPage(problem).into_response()),
        }
    }
}

/// The fields of a form.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads the body of a request.
    pub(super) async fn read(request: Request, console: &Arc<Console>) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, console).await.map_err(|_| {
            Problem::bad_request("The form is longer than 64 KiB, or was not sent completely.")
        })?;
        Ok(Self(form_urlencoded::parse(&bytes).into_owned().collect()))
    }

    /// The value of a field, if the form has the field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a field without spaces around it, if it isn't empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    #[cfg(test)]
    pub(super) fn for_test(fields: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(fields.iter().map(owned).collect())
    }
}

/// A form that a page of this session submitted.
pub(super) struct SubmittedForm {
    pub(super) principal: Principal,
    pub(super) fields: Fields,
}

impl FromRequest<Arc<Console>> for SubmittedForm {
    type Rejection = Response;

    async fn from_request(request: Request, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let SignedIn(principal) = SignedIn::from_request_parts(&mut parts, console).await?;
        let fields = Fields::read(Request::from_parts(parts, body), console)
            .await
            .map_err(|problem| ErrorPage(problem).into_response())?;
        if principal.accepts_csrf_token(fields.get("csrf")) {
            Ok(Self { principal, fields })
        } else {
            Err(ErrorPage(Problem::invalid_csrf_token()).into_response())
        }
    }
}
