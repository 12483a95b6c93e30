//! `/accounts`: Twilio accounts, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::extract::{JsonBody, PathParams};
use crate::access::Principal;
use crate::problem::Problem;
use crate::services::accounts::{self, Account, AccountChange};
use crate::state::Console;

/// List the Twilio accounts.
///
/// Operators only.
#[utoipa::path(get, path = "/api/v1/accounts",
    responses((status = 200, body = [Account]), (status = 401, body = Problem),
        (status = 404, body = Problem)))]
pub(super) async fn list_accounts(
    State(console): State<Arc<Console>>,
    principal: Principal,
) -> Result<Json<Vec<Account>>, Problem> {
    principal.authorize_operator()?;
    Ok(Json(accounts::list(&console).await?))
}

/// Change the rate limit of a Twilio account, pause it or resume it.
///
/// Queued deliveries are rescheduled at once. Operators only.
#[utoipa::path(patch, path = "/api/v1/accounts/{account}", request_body = AccountChange,
    params(("account" = String, Path)),
    responses((status = 200, body = Account), (status = 400, body = Problem),
        (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn change_account(
    State(console): State<Arc<Console>>,
    PathParams(account): PathParams<String>,
    principal: Principal,
    JsonBody(change): JsonBody<AccountChange>,
) -> Result<Json<Account>, Problem> {
    principal.authorize_operator()?;
    Ok(Json(
        accounts::change(&console, &principal, &account, &change).await?,
    ))
}
