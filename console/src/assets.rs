//! Style sheet, script and icon. The program contains them, so nothing is installed or fetched.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

pub(crate) fn router() -> Router {
    let asset = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "public, max-age=300")];
            (headers, text).into_response()
        })
    };
    Router::new()
        .route(
            "/assets/console.css",
            asset("text/css; charset=utf-8", STYLE),
        )
        .route(
            "/assets/console.js",
            asset("text/javascript; charset=utf-8", SCRIPT),
        )
        .route("/assets/icon.svg", asset("image/svg+xml", ICON))
}
