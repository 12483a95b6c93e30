//! `/system`: workers and dead letters, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use crate::access::Principal;
use crate::problem::Problem;
use crate::services::system::{self, System};
use crate::state::Console;

/// Get the state of the workers and of the dead-letter queue.
///
/// Operators only.
#[utoipa::path(get, path = "/api/v1/system",
    responses((status = 200, body = System), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn get_system(
    State(console): State<Arc<Console>>,
    principal: Principal,
) -> Result<Json<System>, Problem> {
    principal.authorize_operator()?;
    Ok(Json(system::state(&console).await?))
}
