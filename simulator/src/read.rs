//! Reading an account's calls: one by SID, or a list with filters and pages.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;

use crate::api_error::ApiError;
use crate::auth;
use crate::call::{API_VERSION, CallResource, SimulatedCall};
use crate::params::Params;
use crate::state::SimulatorState;

/// Twilio's page size where the request doesn't say.
const DEFAULT_PAGE_SIZE: u32 = 50;

/// The parameters of a list request that the simulator supports.
const SUPPORTED: [&str; 9] = [
    "To",
    "From",
    "Status",
    "StartTime",
    "StartTime<",
    "StartTime>",
    "PageSize",
    "Page",
    "PageToken",
];

/// Filters of Twilio's that the simulator doesn't support, since voice-otp doesn't send them.
const UNSUPPORTED: [&str; 4] = ["ParentCallSid", "EndTime", "EndTime<", "EndTime>"];

const STATUSES: [&str; 8] = [
    "queued",
    "ringing",
    "in-progress",
    "canceled",
    "completed",
    "failed",
    "busy",
    "no-answer",
];

/// Handles `GET …/Calls/{sid}.json`.
pub(crate) async fn call(
    State(state): State<Arc<SimulatorState>>,
    Path((account, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    let mut store = state.calls();
    let call = store
        .at_path(&account.sid, &file)
        .ok_or_else(|| not_found(&account.sid, &file))?;
    Ok(Json(call.resource()))
}

/// The error for a call that the account doesn't have.
pub(crate) fn not_found(account: &str, file: &str) -> ApiError {
    ApiError::not_found(&format!("/{API_VERSION}/Accounts/{account}/Calls/{file}"))
}

/// Handles `GET …/Calls.json`: the newest first.
pub(crate) async fn calls(
    State(state): State<Arc<SimulatorState>>,
    Path(account): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let account = auth::authorize(&state.accounts(), &account, &headers)?;
    let params = Params::of_query(query.as_deref());
    let filter = Filter::parse(&params)?;
    let store = state.calls();
    // A page token ties the page to a call, so that newer calls don't shift it.
    let before = filter
        .token
        .map(|sid| {
            store
                .find(&account.sid, sid)
                .ok_or_else(|| unknown_token(sid))
        })
        .transpose()?;
    let size = filter.page_size as usize;
    let skipped = if before.is_some() {
        0
    } else {
        filter.page as usize * size
    };
    let mut found: Vec<&SimulatedCall> = store
        .of_account(&account.sid, filter.to)
        .filter(|(id, _)| before.is_none_or(|before| *id < before))
        .map(|(_, call)| call)
        .filter(|call| filter.matches(call))
        .skip(skipped)
        .take(size + 1)
        .collect();
    let more = found.len() > size;
    found.truncate(size);
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| format!("PA{}", last.sid));
    let uri = |page: u32, token: Option<&str>| filter.uri(&account.sid, page, token);
    let start = filter.page as usize * size;
    Ok(Json(Page {
        page: filter.page,
        page_size: filter.page_size,
        start,
        end: (start + found.len()).saturating_sub(1),
        uri: uri(filter.page, None),
        first_page_uri: uri(0, None),
        next_page_uri: next.map(|token| uri(filter.page + 1, Some(&token))),
        previous_page_uri: filter.page.checked_sub(1).map(|page| uri(page, None)),
        calls: found.into_iter().map(SimulatedCall::resource).collect(),
    }))
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "Twilio's names")]
struct Page {
    calls: Vec<CallResource>,
    page: u32,
    page_size: u32,
    start: usize,
    end: usize,
    uri: String,
    first_page_uri: String,
    next_page_uri: Option<String>,
    previous_page_uri: Option<String>,
}

fn unknown_token(sid: &str) -> ApiError {
    ApiError::strict(format!("no page ends with call {sid}"))
}

/// The filters and the page of a list request.
struct Filter<'a> {
    to: Option<&'a str>,
    from: Option<&'a str>,
    status: Option<&'a str>,
    started_on: Option<NaiveDate>,
    started_before: Option<NaiveDate>,
    started_after: Option<NaiveDate>,
    page: u32,
    page_size: u32,
    /// The SID of the last call of the previous page.
    token: Option<&'a str>,
}

impl<'a> Filter<'a> {
    fn parse(params: &'a Params) -> Result<Self, ApiError> {
        params.check_names(&SUPPORTED, &UNSUPPORTED)?;
        let token = params.single("PageToken")?;
        Ok(Self {
            to: params.single("To")?,
            from: params.single("From")?,
            status: params.one_of("Status", &STATUSES, ApiError::strict)?,
            started_on: date(params, "StartTime")?,
            started_before: date(params, "StartTime<")?,
            started_after: date(params, "StartTime>")?,
            page: params
                .number("Page", 0..=1_000_000, ApiError::strict)?
                .unwrap_or(0),
            page_size: params
                .number("PageSize", 1..=1_000, ApiError::strict)?
                .unwrap_or(DEFAULT_PAGE_SIZE),
            token: token
                .map(|token| token.strip_prefix("PA").ok_or_else(|| unknown_token(token)))
                .transpose()?,
        })
    }

    /// Whether a call passes the filters. A call that hasn't been dialled has no start time, so no
    /// filter on that lets it pass.
    fn matches(&self, call: &SimulatedCall) -> bool {
        let started = call.dialled.as_ref().map(DateTime::<Utc>::date_naive);
        let passes = |bound: Option<NaiveDate>, compare: fn(&NaiveDate, &NaiveDate) -> bool| {
            bound.is_none_or(|bound| started.is_some_and(|started| compare(&started, &bound)))
        };
        self.to.is_none_or(|to| call.parameters.to == to)
            && self.from.is_none_or(|from| call.parameters.from == from)
            && self
                .status
                .is_none_or(|status| call.stage.status() == status)
            && passes(self.started_on, NaiveDate::eq)
            && passes(self.started_before, NaiveDate::le)
            && passes(self.started_after, NaiveDate::ge)
    }

    /// The path and query of a page of this list.
    fn uri(&self, account: &str, page: u32, token: Option<&str>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("To", self.to),
            ("From", self.from),
            ("Status", self.status),
            ("PageToken", token),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let dates = [
            ("StartTime", self.started_on),
            ("StartTime<", self.started_before),
            ("StartTime>", self.started_after),
        ];
        for (name, date) in dates {
            if let Some(date) = date {
                query.append_pair(name, &date.to_string());
            }
        }
        query.append_pair("PageSize", &self.page_size.to_string());
        query.append_pair("Page", &page.to_string());
        format!(
            "/{API_VERSION}/Accounts/{account}/Calls.json?{}",
            query.finish()
        )
    }
}

fn date(params: &Params, name: &str) -> Result<Option<NaiveDate>, ApiError> {
    let Some(text) = params.single(name)? else {
        return Ok(None);
    };
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) => Ok(Some(date)),
        Err(_) => Err(ApiError::strict(format!(
            "{name} is a date such as 2026-01-31, in UTC"
        ))),
    }
}
