//! A simulator of Twilio, for development, demos and tests: the part of Twilio's HTTP API that
//! voice-otp uses, and the calls behind it.
//!
//! ```text
//! POST  /2010-04-01/Accounts/{sid}/Calls.json          create a call
//! GET   /2010-04-01/Accounts/{sid}/Calls.json          list calls, the newest first
//! GET   /2010-04-01/Accounts/{sid}/Calls/{call}.json   read a call
//! POST  /2010-04-01/Accounts/{sid}/Calls/{call}.json   cancel a call, or hang it up
//! GET   /2010-04-01/Accounts/{sid}.json                read the account
//! GET   /2010-04-01/Accounts/{sid}/Balance.json        read the balance
//! GET   /2010-04-01/Accounts/{sid}/IncomingPhoneNumbers.json   list its numbers; ?PhoneNumber=
//! GET   /2010-04-01/Accounts/{sid}/OutgoingCallerIds.json      list its caller IDs; ?PhoneNumber=
//! GET   /v1/DialingPermissions/Countries/{country}     read its geographic permissions
//!
//! POST  /simulator/fates       set a number's fate, for some requests or without limit:
//!                              {"to": "+14155550199", "fate": "busy", "times": 3}
//! POST  /simulator/accounts    add or replace an account
//! PATCH /simulator/faults      change some of the random faults
//! GET   /simulator/calls       report calls; ?to= and ?since= (RFC 3339) filter them
//! GET   /simulator/stats       count requests, calls and callbacks
//! GET   /readyz                a health check
//! ```
//!
//! The JSON under `/simulator` is that of [`Fate`], [`Account`], [`Faults`], [`CallReport`] and
//! [`Stats`]. These endpoints need no credentials: serve the simulator on a loopback address only.
//!
//! # What it does
//!
//! A call waits in its account's queue, is dialled, rings, and is answered or not. An answered call
//! plays its `TwiML`: the inline one of the create request, or what the simulator fetches from the
//! request's `Url` and from the URLs that the documents lead to. A `Gather` waits for a key, which
//! the callee presses or not. Signed callbacks report the call's progress and the result of
//! answering machine detection, with the timeouts and retries that the URL's fragment asks for. A
//! few seconds after a completed call has ended, it has a price of 0.014 per started minute.
//!
//! What happens to a call is its [`Fate`]. The number's last two digits select it, or a test sets
//! it. How long each step takes is random, from a seed, so that a run can be repeated. The
//! [`Transcript`] shows what the callee heard.
//!
//! # Where it is stricter than Twilio
//!
//! It exists to find mistakes early, so it refuses requests that Twilio would accept:
//! - with a parameter that Twilio doesn't know or that is given twice (Twilio ignores it), or one
//!   that the simulator doesn't support;
//! - with inline `TwiML` that would fail when the call is answered: XML that isn't well-formed,
//!   unknown elements or attributes, voices that don't speak the language, SSML that the voice
//!   doesn't support, pauses and breaks that aren't valid;
//! - with both `Url` and `Twiml`, or with invalid connection overrides in a URL's fragment;
//! - for a list, with a status, date or page that isn't valid.
//!
//! A document that a call fetches is checked in the same way. If it is invalid, larger than 64 KiB,
//! or can't be fetched, the call ends after three seconds, as after Twilio's error message.
//!
//! # Where it differs from Twilio
//!
//! - It knows `Say`, `Play`, `Pause`, `Gather`, `Redirect` and `Hangup`; a `Gather` ends at the
//!   first key. A call requests at most ten documents.
//! - It knows the voices of `voices.tsv`, `man` and `woman`. Twilio has more.
//! - Requests to the client's URLs are POSTs; `GET` as a method is refused. Loopback URLs work.
//! - A new call is in lists at once. Twilio's lists are eventually consistent.
//! - At another speed than 1, ringing and talking take less or more time, and `duration` is still
//!   what it would be at speed 1. The account's calls per second, and so `queue_time`, aren't
//!   scaled, since keeping to them is the client's job.
//! - SIDs differ from run to run, even with the same seed, so that a database can outlive a
//!   simulator.
//! - Calls are kept until the simulator stops. Prices don't change the account's balance.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Uri};
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::{get, patch, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::account::{Account, ApiKey};
pub use self::fate::Fate;
pub use self::faults::Faults;
pub use self::report::{CallReport, Stats};
pub use self::state::Settings;
pub use self::transcript::Transcript;
pub use self::utterance::{Utterance, UtteranceKind};

use self::api_error::ApiError;
use self::rng::RngPurpose;
use self::state::SimulatorState;

mod account;
mod account_resources;
mod api_error;
mod auth;
mod call;
mod call_parameters;
mod call_plan;
mod call_store;
mod callback;
mod clock;
mod connection;
mod connection_overrides;
mod control;
mod conversation;
mod create;
mod fate;
mod faults;
mod http_clients;
mod lifecycle;
mod number;
mod params;
mod queue;
mod read;
mod report;
mod rng;
mod speech;
mod state;
mod transcript;
pub mod twiml;
mod update;
mod utterance;
mod voices;
mod webhook;
mod webhook_client;

#[cfg(test)]
mod tests;

/// A simulator. Clones share its state.
#[derive(Clone)]
pub struct Simulator {
    state: Arc<SimulatorState>,
}

/// Why a simulator stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener failed.
    #[error("failed to serve the simulator")]
    Serve(#[source] io::Error),
}

impl Simulator {
    /// Creates a simulator without calls.
    pub fn new(settings: Settings) -> Self {
        Self {
            state: Arc::new(SimulatorState::new(settings)),
        }
    }

    /// Serves until `shutdown` is cancelled, then stops the running calls.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let service = self
            .router()
            .into_make_service_with_connect_info::<connection::CutHandle>();
        let halt = self.state.halt.clone();
        let stop = async move {
            shutdown.cancelled().await;
            // This ends the requests that are kept waiting, too. Otherwise the graceful shutdown
            // would wait for their connections.
            halt.cancel();
        };
        axum::serve(connection::CuttableListener(listener), service)
            .with_graceful_shutdown(stop)
            .await
            .map_err(Error::Serve)?;
        self.state.tasks.close();
        self.state.tasks.wait().await;
        Ok(())
    }

    /// The HTTP interface. If it isn't served by [`Simulator::serve`], connections can't be cut
    /// ([`Fate::Cut`]), and calls don't stop with the server.
    pub fn router(&self) -> Router {
        Router::new()
            .route(
                "/2010-04-01/Accounts/{account}/Calls.json",
                get(read::calls).post(create::create),
            )
            .route(
                "/2010-04-01/Accounts/{account}/Calls/{call}",
                get(read::call).post(update::update),
            )
            .route(
                "/2010-04-01/Accounts/{account}/Balance.json",
                get(account_resources::balance),
            )
            .route(
                "/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json",
                get(account_resources::numbers),
            )
            .route(
                "/2010-04-01/Accounts/{account}/OutgoingCallerIds.json",
                get(account_resources::caller_ids),
            )
            .route(
                "/2010-04-01/Accounts/{account}",
                get(account_resources::account),
            )
            .route(
                "/v1/DialingPermissions/Countries/{country}",
                get(account_resources::dialing_permission),
            )
            .route("/simulator/fates", post(control::fates))
            .route("/simulator/accounts", post(control::accounts))
            .route("/simulator/faults", patch(control::faults))
            .route("/simulator/calls", get(control::calls))
            .route("/simulator/stats", get(control::stats))
            // For a container's health check; Twilio has no such path.
            .route("/readyz", get(|| async { "ok\n" }))
            .fallback(not_found)
            .layer(map_response_with_state(
                Arc::clone(&self.state),
                add_request_id,
            ))
            .with_state(Arc::clone(&self.state))
    }

    /// Reports on all calls, the oldest first.
    pub fn calls(&self) -> Vec<CallReport> {
        self.state
            .calls()
            .all(None)
            .into_iter()
            .map(CallReport::of)
            .collect()
    }

    /// What the callee heard of a call: nothing until the call has ended. `None` if there is no
    /// call with this SID.
    pub fn transcript(&self, sid: &str) -> Option<Transcript> {
        self.state.calls().by_sid(sid).map(report::transcript)
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.state)
    }

    /// Adds an account. It replaces one with the same SID.
    pub fn put_account(&self, account: Account) {
        self.state.accounts().put(account);
    }

    /// Sets the fate of a number for its next `times` create requests, or without limit. With 0
    /// `times`, removes an earlier setting.
    pub fn set_fate(&self, to: &str, fate: Fate, times: Option<u32>) {
        self.state.fates().set(to.to_owned(), fate, times);
    }

    /// Sets the random faults.
    pub fn set_faults(&self, faults: Faults) {
        *self.state.faults() = faults;
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

async fn not_found(uri: Uri) -> ApiError {
    ApiError::not_found(uri.path())
}

/// Adds the request id that every answer of Twilio's has, and counts the request.
async fn add_request_id(
    State(state): State<Arc<SimulatorState>>,
    mut response: Response,
) -> Response {
    let number = state.counters.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!(
        "RQ{}",
        state
            .rng
            .id(RngPurpose::RequestId, number, state.clock.salt())
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("twilio-request-id", id);
    }
    response
}
