//! Searching a tenant's deliveries.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use voice_otp_publisher::clock;
use voice_otp_schemas::status::Status;
use voice_otp_schemas::{PhoneNumber, TenantId, Timestamp};
use voice_otp_store::history::{self, Filter, Seen};

use super::delivery::{Delivery, IN_PROGRESS};
use crate::access::Principal;
use crate::problem::{FieldError, Problem};
use crate::state::Console;

/// A page of deliveries.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct DeliveryPage {
    /// Deliveries, newest first.
    pub(crate) deliveries: Vec<Delivery>,
    /// Value of `after` for the next page; null on the last page.
    pub(crate) next: Option<String>,
}

/// Filter for deliveries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveryQuery {
    /// Beginning of the delivery id.
    pub(crate) id: Option<String>,
    /// Final statuses or `in_progress`, separated by commas.
    pub(crate) status: Option<String>,
    /// Called number, masked or E.164. Prefer the masked number: URLs appear in logs.
    pub(crate) to: Option<String>,
    /// Accepted at or after this time, RFC 3339; default: 24 hours ago.
    pub(crate) since: Option<String>,
    /// Accepted before this time, RFC 3339.
    pub(crate) until: Option<String>,
    /// `next` of the previous page.
    pub(crate) after: Option<String>,
    /// Deliveries per page: 1 to 200; default: 50.
    #[param(minimum = 1, maximum = 200)]
    pub(crate) limit: Option<i64>,
}

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 200;
/// How far back a search without `since` looks.
const DEFAULT_WINDOW: Duration = Duration::from_hours(24);

pub(crate) async fn search(
    console: &Console,
    principal: &Principal,
    tenant: &TenantId,
    query: &DeliveryQuery,
) -> Result<DeliveryPage, Problem> {
    let filter = query.filter().map_err(Problem::invalid)?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let turn = console.query_turns.take(principal.role()).await?;
    // One more than asked for shows whether there is another page.
    let mut found = history::list(&console.pool, tenant, &filter, limit + 1).await?;
    drop(turn);
    let has_more = i64::try_from(found.len()).unwrap_or(0) > limit;
    found.truncate(usize::try_from(limit).unwrap_or(0));
    Ok(DeliveryPage {
        deliveries: found.iter().map(Delivery::from).collect(),
        next: found.last().filter(|_| has_more).map(cursor_after),
    })
}

/// The place after a delivery in the list: its admission and its id.
fn cursor_after(row: &Seen) -> String {
    format!(
        "{}~{}",
        row.admitted_at.format("%Y-%m-%dT%H:%M:%S%.6fZ"),
        row.delivery_id
    )
}

fn parse_cursor(text: &str) -> Option<(Timestamp, String)> {
    let (at, id) = text.split_once('~')?;
    Some((parse_time(at)?, id.to_owned()))
}

/// A time in the years that Postgres and people have in common.
fn parse_time(text: &str) -> Option<Timestamp> {
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (2000..2100).contains(&time.year()).then_some(time)
}

impl DeliveryQuery {
    fn filter(&self) -> Result<Filter, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut time = |field: &str, text: Option<String>| {
            let time = text.map(|text| parse_time(&text).ok_or(())).transpose();
            time.unwrap_or_else(|()| {
                let message = "must be a time such as 2026-01-31T09:30:00Z, from 2000 to 2099";
                errors.push(FieldError::new(field, message));
                None
            })
        };
        let since = time("since", filled(self.since.as_ref()));
        let until = time("until", filled(self.until.as_ref()));
        let statuses: Vec<String> = filled(self.status.as_ref())
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        if !statuses.iter().all(|word| is_searchable(word)) {
            let message = "must be in_progress or final statuses such as delivered, separated by \
                           commas";
            errors.push(FieldError::new("status", message));
        }
        let to_masked = filled(self.to.as_ref())
            .map(|text| PhoneNumber::parse(&text).map_or(text, |number| number.masked()));
        let after = filled(self.after.as_ref()).map(|text| parse_cursor(&text));
        if after.as_ref().is_some_and(Option::is_none) {
            errors.push(FieldError::new(
                "after",
                "must be next of the previous page",
            ));
        }
        let (id, after) = (filled(self.id.as_ref()), after.flatten());
        let texts = [
            id.as_ref(),
            to_masked.as_ref(),
            after.as_ref().map(|(_, id)| id),
        ];
        // Postgres has no text with NUL characters.
        if texts.into_iter().flatten().any(|text| text.contains('\0')) {
            errors.push(FieldError::new("id", "must not contain NUL characters"));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Filter {
            since: since.or_else(|| Some(clock::now() - DEFAULT_WINDOW)),
            until,
            statuses,
            to_masked,
            id,
            after,
        })
    }
}

fn is_searchable(word: &str) -> bool {
    word == IN_PROGRESS || Status::parse(word).is_some_and(Status::is_final)
}

/// The text without spaces around it; `None` if nothing is left.
fn filled(text: Option<&String>) -> Option<String> {
    let text = text.map(|text| text.trim()).filter(|text| !text.is_empty());
    text.map(str::to_owned)
}
