//! One delivery with its timeline.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;
use voice_otp_schemas::request::rfc3339;
use voice_otp_schemas::{DeliveryId, TenantId, Timestamp};
use voice_otp_store::history::{self, Seen};

use super::delivery::Delivery;
use crate::hub::LiveStatus;
use crate::problem::Problem;
use crate::state::Console;

/// A status of a delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Step {
    /// Status of the delivery.
    pub(crate) status: String,
    /// Time of the status, RFC 3339.
    pub(crate) at: String,
    /// Reason, as a sentence.
    pub(crate) detail: Option<String>,
}

/// A delivery with its timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DeliveryDetails {
    /// The delivery.
    #[serde(flatten)]
    pub(crate) delivery: Delivery,
    /// Statuses in order. Of older deliveries, those whose times are stored, without reasons.
    pub(crate) timeline: Vec<Step>,
}

pub(crate) async fn find(
    console: &Console,
    tenant: &TenantId,
    id: &str,
) -> Result<DeliveryDetails, Problem> {
    let id = DeliveryId::parse(id).map_err(|_| Problem::not_found())?;
    let row = history::find(&console.pool, tenant, &id)
        .await?
        .ok_or_else(Problem::not_found)?;
    let live = console.hub.recent_statuses(tenant, &row.delivery_id);
    Ok(DeliveryDetails {
        timeline: timeline(&row, &live),
        delivery: Delivery::from(&row),
    })
}

/// The statuses as they were published, if none of them is missing; otherwise those whose times
/// the database has.
fn timeline(row: &Seen, live: &[Arc<LiveStatus>]) -> Vec<Step> {
    let in_sequence = (1..).zip(live).all(|(n, status)| status.data.sequence == n);
    let has_final = live.last().is_some_and(|status| status.data.is_final);
    if !live.is_empty() && in_sequence && (row.final_status.is_none() || has_final) {
        return live.iter().map(|status| published_step(status)).collect();
    }
    let step = |status: &str, at: Option<Timestamp>| {
        at.map(|at| Step {
            status: status.to_owned(),
            at: rfc3339(at),
            detail: None,
        })
    };
    let steps = [
        step("accepted", Some(row.admitted_at)),
        step("placed", row.placed_at),
        step("ringing", row.ringing_at),
        step("answered", row.answered_at),
        row.final_status
            .as_deref()
            .and_then(|status| step(status, row.ended_at)),
    ];
    steps.into_iter().flatten().collect()
}

fn published_step(live: &LiveStatus) -> Step {
    Step {
        status: live.data.status.as_str().to_owned(),
        at: live.time.clone(),
        detail: live
            .data
            .reason
            .as_ref()
            .map(|reason| reason.message.clone()),
    }
}
