//! `/tenants/{tenant}/test-calls`: placing a test call.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};

use super::extract::{JsonBody, PathParams};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::test_calls::{self, NewTestCall, TestCall};
use crate::state::Console;

/// Call a number and read a random code.
///
/// A tenant can place five test calls in ten minutes. The statuses of the call are streamed at
/// `events`.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/test-calls", request_body = NewTestCall,
    params(("tenant" = String, Path)),
    responses((status = 202, body = TestCall), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn place_test_call(
    State(console): State<Arc<Console>>,
    PathParams(tenant): PathParams<String>,
    principal: Principal,
    JsonBody(new): JsonBody<NewTestCall>,
) -> Result<Response, Problem> {
    let tenant = principal.authorize_tenant(&tenant)?;
    let call = test_calls::place(&console, &principal, &tenant, &new).await?;
    let location = [(LOCATION, call.events.clone())];
    Ok((StatusCode::ACCEPTED, location, Json(call)).into_response())
}
