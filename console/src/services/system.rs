//! Workers and dead letters.

use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_publisher::dead_letters;
use voice_otp_schemas::request::rfc3339;
use voice_otp_store::workers;

use crate::problem::Problem;
use crate::state::Console;

/// A worker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Worker {
    /// Host and process of the worker.
    pub(crate) name: String,
    /// Time at which the worker started, RFC 3339.
    pub(crate) started_at: String,
    /// Whether the worker's lease is valid.
    pub(crate) alive: bool,
    /// Number of open deliveries that the worker owns.
    pub(crate) holds: i64,
}

/// State of the system.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct System {
    /// Known workers, online workers first.
    pub(crate) workers: Vec<Worker>,
    /// Messages in the dead-letter queue; null if the broker did not answer.
    pub(crate) dead_letters: Option<u32>,
}

pub(crate) async fn state(console: &Console) -> Result<System, Problem> {
    let worker = |worker: workers::Worker| Worker {
        name: worker.name,
        started_at: rfc3339(worker.started_at),
        alive: worker.alive,
        holds: worker.deliveries,
    };
    let workers = workers::list(&console.pool).await?;
    Ok(System {
        workers: workers.into_iter().map(worker).collect(),
        dead_letters: dead_letters::count(&console.amqp_url).await.ok(),
    })
}
