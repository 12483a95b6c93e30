//! The tenants that have a voice provider.

pub(crate) use voice_otp_store::settings::Summary;

use crate::problem::Problem;
use crate::state::Console;

/// Every tenant with a voice provider, ordered by id.
pub(crate) async fn list(console: &Console) -> Result<Vec<Summary>, Problem> {
    Ok(voice_otp_store::settings::list(&console.pool).await?)
}
