//! Pages as responses.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{Markup, html};

use super::layout;
use crate::problem::Problem;

/// A page with a status.
pub(super) fn html_page(status: StatusCode, page: &Markup) -> Response {
    (status, Html(page.0.clone())).into_response()
}

/// A problem as a page of its own.
pub(super) struct ErrorPage(pub(super) Problem);

impl From<Problem> for ErrorPage {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ErrorPage {
    fn into_response(self) -> Response {
        let mut response = html_page(
            self.0.status(),
            &layout::bare_page(self.0.title(), &error_content(&self.0)),
        );
        response.headers_mut().extend(self.0.retry_after());
        response
    }
}

pub(super) fn error_content(problem: &Problem) -> Markup {
    html! {
        div.gate {
            (layout::brand())
            div.card {
                h1 { (problem.title()) }
                p { (problem.detail()) }
                a.button href="/" { "Home" }
            }
        }
    }
}
