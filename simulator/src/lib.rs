//! A simulator of Twilio's side, to develop and test against: the part of its HTTP interface that reading a code to a
//! telephone needs, and the calls behind it.
//!
//! ```text
//! POST  /2010-04-01/Accounts/{sid}/Calls.json          create a call
//! GET   /2010-04-01/Accounts/{sid}/Calls.json          list calls, the newest first
//! GET   /2010-04-01/Accounts/{sid}/Calls/{call}.json   read a call
//! POST  /2010-04-01/Accounts/{sid}/Calls/{call}.json   cancel it, or hang it up
//! GET   /2010-04-01/Accounts/{sid}.json                read the account
//! GET   /2010-04-01/Accounts/{sid}/Balance.json        read the balance
//! GET   /2010-04-01/Accounts/{sid}/IncomingPhoneNumbers.json   its numbers; ?PhoneNumber=
//! GET   /2010-04-01/Accounts/{sid}/OutgoingCallerIds.json      its verified caller IDs; ?PhoneNumber=
//! GET   /v1/DialingPermissions/Countries/{country}     whether it may call there (the voice product)
//!
//! POST  /simulator/fates       {"to": "+14155550199", "fate": "busy", "times": 3}: see [`Fate`]; no times is for ever
//! POST  /simulator/accounts    add or replace an [`Account`]
//! PATCH /simulator/faults      change some of the [`Faults`]
//! GET   /simulator/calls       what became of the calls, as [`CallReport`]s; ?to= and ?since= (RFC 3339) narrow it down
//! GET   /simulator/stats       [`Stats`]
//! ```
//!
//! The endpoints under `/simulator` need no credentials: serve the simulator on a loopback address only.
//!
//! # What it does
//!
//! A created call waits in its account's queue for its turn, is dialled, rings, is answered or not, says its `TwiML`
//! and ends; signed callbacks tell of it as Twilio's do, with the retries that the URL's fragment asks for. What
//! happens is the call's [`Fate`], picked by the end of the number or by whoever runs a test. How long it takes is
//! thrown with dice that a seed fixes, so a run repeats. The simulator knows what the person on the phone heard, as a
//! [`Transcript`].
//!
//! # Where it is stricter than Twilio
//!
//! It is there to find mistakes early, so it refuses what Twilio would let pass:
//! - a parameter that Twilio doesn't know, or that comes twice (Twilio ignores it);
//! - `TwiML` that would fail when the call is answered: not well-formed, unknown elements or attributes, a voice that
//!   isn't known for the language, SSML that the voice can't take, pauses and breaks of another form;
//! - both `Url` and `Twiml`; wrong overrides in a callback's fragment; a wrong status, date or page in a list's filter.
//!
//! # Where it differs
//!
//! - It takes inline `TwiML` only, no `Url`, and nobody ever presses a key: a `Gather` passes by.
//! - It knows one voice for each language, and `man` and `woman`.
//! - Loopback callback URLs are fine. Callbacks are posted, never sent by GET.
//! - A call is visible in lists at once. Twilio's are eventually consistent.
//! - At another speed than 1, ringing and talking are faster, but `duration` is that of life. The account's pace, and
//!   so `queue_time`, is real time at any speed: keeping it is the caller's job.
//! - SIDs differ from run to run, also with one seed, so that a database can outlive a simulator.
//! - Calls are kept until the simulator stops. They cost nothing: the balance stays.

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
pub use self::transcript::{Kind, Transcript, Utterance};

use self::dice::Concern;
use self::refusal::Refusal;
use self::world::World;

mod about;
mod account;
mod auth;
mod book;
mod call;
mod callback;
mod clock;
mod control;
mod conversation;
mod create;
mod dice;
mod fate;
mod faults;
mod life;
mod line;
mod number;
mod order;
mod overrides;
mod params;
mod plan;
mod post;
mod queue;
mod read;
mod refusal;
mod report;
mod speech;
mod transcript;
pub mod twiml;
mod update;
mod voices;
mod world;

#[cfg(test)]
mod tests;

/// What a simulator starts with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The accounts; more can be added while it runs.
    pub accounts: Vec<Account>,
    /// Fixes everything that chance decides, but for the SIDs.
    pub seed: u64,
    /// How many times faster than life calls ring and talk: 1 is life.
    pub speed: f64,
}

/// A simulator. Clones are handles to the same one.
#[derive(Clone)]
pub struct Simulator {
    world: Arc<World>,
}

/// Why a simulator stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener failed.
    #[error("serve the simulator")]
    Serve(#[source] io::Error),
}

impl Simulator {
    /// A simulator without calls.
    pub fn new(settings: Settings) -> Self {
        Self {
            world: Arc::new(World::new(settings)),
        }
    }

    /// Serves until the shutdown, then breaks off the calls that are under way.
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
            .into_make_service_with_connect_info::<line::Line>();
        let halt = self.world.halt.clone();
        let stop = async move {
            shutdown.cancelled().await;
            // Requests that are kept waiting end with this too, or the connections would not.
            halt.cancel();
        };
        axum::serve(line::Lines(listener), service)
            .with_graceful_shutdown(stop)
            .await
            .map_err(Error::Serve)?;
        self.world.tasks.close();
        self.world.tasks.wait().await;
        Ok(())
    }

    /// The HTTP interface. Served by anything but [`Simulator::serve`], a connection can't be cut ([`Fate::Cut`]), and
    /// calls don't end with the server.
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
                get(about::balance),
            )
            .route(
                "/2010-04-01/Accounts/{account}/IncomingPhoneNumbers.json",
                get(about::numbers),
            )
            .route(
                "/2010-04-01/Accounts/{account}/OutgoingCallerIds.json",
                get(about::caller_ids),
            )
            .route("/2010-04-01/Accounts/{account}", get(about::account))
            .route(
                "/v1/DialingPermissions/Countries/{country}",
                get(about::dialing_permission),
            )
            .route("/simulator/fates", post(control::fates))
            .route("/simulator/accounts", post(control::accounts))
            .route("/simulator/faults", patch(control::faults))
            .route("/simulator/calls", get(control::calls))
            .route("/simulator/stats", get(control::stats))
            // Not Twilio's either: for a container's health check.
            .route("/readyz", get(|| async { "ok\n" }))
            .fallback(nothing_here)
            .layer(map_response_with_state(Arc::clone(&self.world), stamped))
            .with_state(Arc::clone(&self.world))
    }

    /// What became of the calls, the oldest first.
    pub fn calls(&self) -> Vec<CallReport> {
        self.world
            .book()
            .all(None)
            .into_iter()
            .map(CallReport::of)
            .collect()
    }

    /// What was heard of a call; nothing of it until it has ended, and none where there is no such call.
    pub fn transcript(&self, sid: &str) -> Option<Transcript> {
        self.world.book().by_sid(sid).map(report::transcript)
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        Stats::of(&self.world)
    }

    /// Adds an account, in place of one with the same SID.
    pub fn put_account(&self, account: Account) {
        self.world.directory().put(account);
    }

    /// Picks the fate of a number for its next `times` create requests, or for ever.
    pub fn set_fate(&self, to: &str, fate: Fate, times: Option<u32>) {
        self.world.fates().choose(to.to_owned(), fate, times);
    }

    /// Sets the faults that strike by chance.
    pub fn set_faults(&self, faults: Faults) {
        *self.world.faults() = faults;
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").finish_non_exhaustive()
    }
}

async fn nothing_here(uri: Uri) -> Refusal {
    Refusal::not_found(uri.path())
}

/// Every answer of Twilio's carries an id to quote to its support.
async fn stamped(State(world): State<Arc<World>>, mut response: Response) -> Response {
    let number = world.tally.requests.fetch_add(1, Ordering::Relaxed);
    let id = format!(
        "RQ{}",
        world.dice.id(Concern::Request, number, world.clock.salt())
    );
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("twilio-request-id", id);
    }
    response
}
