//! Whether a database server keeps what the guarantees need: replication, durability, clock,
//! rights.
//!
//! A worker logs what isn't right once, at its start; `voice-otp database check` shows all of it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tokio_postgres::{Client, Row};

use crate::connect::ConnectError;
use crate::grants::{self, Program};
use crate::pooler;
use crate::url::DatabaseUrl;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked: a few words, always the same.
    pub name: &'static str,
    /// Whether it is right.
    pub severity: Severity,
    /// What it is, what follows from it, and what to do.
    pub text: String,
}

/// Whether something is right, from right to wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is.
    Ok,
    /// The system works, with less than its guarantees.
    Warning,
    /// The system doesn't work, or loses requests in a crash.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Why the server can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection to the database.
    #[error("connect to Postgres")]
    Connect(#[source] ConnectError),
    /// A statement failed.
    #[error("read the server's settings")]
    Read(#[source] tokio_postgres::Error),
}

/// A clock that differs by more is worth a warning, and an error.
const CLOCK_WARNING: Duration = Duration::from_secs(1);
const CLOCK_ERROR: Duration = Duration::from_secs(5);

/// A transaction that is open for longer keeps dead rows from being removed.
const LONG_TRANSACTION: Duration = Duration::from_mins(5);

/// Settings and states. Restricted roles see other sessions without their state.
const FACTS: &str = "select current_setting('server_version') as version, \
       current_setting('server_version_num')::integer as version_number, \
       current_setting('synchronous_standby_names') as standby_names, \
       current_setting('synchronous_commit') as synchronous_commit, \
       current_setting('fsync') as fsync, \
       current_setting('full_page_writes') as full_page_writes, \
       current_setting('transaction_read_only') as read_only, \
       pg_is_in_recovery() as in_recovery, \
       pg_has_role('pg_read_all_stats', 'usage') as sees_all, \
       (select count(*) from pg_stat_replication) as standbys, \
       (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')) \
         as synchronous_standbys, \
       (select extract(epoch from max(clock_timestamp() - xact_start))::double precision \
          from pg_stat_activity where backend_type = 'client backend') as oldest_transaction_s";

const SESSIONS: &str = "sessions";
const RIGHTS: &str = "rights";

/// Checks a server, for a program that connects with this URL.
///
/// # Errors
/// [`Error`] when the server can't be asked.
pub async fn check(url: &DatabaseUrl, program: Program) -> Result<Vec<Finding>, Error> {
    let session = url.open().await.map_err(Error::Connect)?;
    let client = &session.client;
    // Through a pooler that loses prepared statements nothing else can be asked.
    let pooler = pooler_finding(pooler::check(url).await);
    if pooler.severity == Severity::Error {
        return Ok(vec![pooler]);
    }
    let facts = client.query_one(FACTS, &[]).await.map_err(Error::Read)?;
    let missing = grants::missing(client, program)
        .await
        .map_err(Error::Read)?;
    let clock = clock_difference(client).await.map_err(Error::Read)?;
    Ok(vec![
        version(&facts),
        pooler,
        writable(&facts),
        replication(&facts),
        commit(&facts),
        durability(&facts),
        clock_finding(clock),
        long_transaction(&facts),
        rights(&missing),
    ])
}

impl Finding {
    /// Whether a program can't work at all until it is mended: starting it would only hide that.
    pub fn prevents_start(&self) -> bool {
        self.severity == Severity::Error && [SESSIONS, RIGHTS].contains(&self.name)
    }

    fn new(name: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            name,
            severity,
            text: text.into(),
        }
    }
}

fn version(facts: &Row) -> Finding {
    let version: String = facts.get("version");
    let oldest = crate::migrate::OLDEST_SERVER;
    if facts.get::<_, i32>("version_number") / 10_000 < oldest {
        let text = format!("{version}; {oldest} or newer is needed");
        return Finding::new("version", Severity::Error, text);
    }
    Finding::new("version", Severity::Ok, version)
}

fn pooler_finding(checked: Result<(), pooler::Error>) -> Finding {
    match checked {
        Ok(()) => Finding::new(
            SESSIONS,
            Severity::Ok,
            "kept: no pooler, or one that keeps them",
        ),
        Err(error @ pooler::Error::Pooler(_)) => {
            Finding::new(SESSIONS, Severity::Error, error.to_string())
        }
        Err(_) => Finding::new(
            SESSIONS,
            Severity::Warning,
            "a second connection was refused, so it isn't known whether a pooler keeps sessions",
        ),
    }
}

fn writable(facts: &Row) -> Finding {
    let (severity, text) = if facts.get("in_recovery") {
        let text = "the server is a standby and only reads: name the primary in the URL, or all \
                    servers with target_session_attrs=read-write";
        (Severity::Error, text)
    } else if facts.get::<_, &str>("read_only") == "on" {
        let text = "transactions only read (default_transaction_read_only is on): set it off for \
                    this role and database";
        (Severity::Error, text)
    } else {
        (Severity::Ok, "a primary that can be written to")
    };
    Finding::new("writes", severity, text)
}

/// Only a synchronous standby has every confirmed request after a failover.
fn replication(facts: &Row) -> Finding {
    let (standbys, synchronous): (i64, i64) =
        (facts.get("standbys"), facts.get("synchronous_standbys"));
    let is_named = !facts.get::<_, &str>("standby_names").is_empty();
    let (severity, text) = match (is_named, standbys) {
        (false, 0) => (
            Severity::Ok,
            "a single node: its disk and its backups are all that a failure leaves, so what was \
             confirmed since the last one may be lost with it"
                .to_owned(),
        ),
        (false, standbys) => (
            Severity::Warning,
            format!(
                "asynchronous, {standbys} connected: a failover loses the last confirmed requests, \
                 and may repeat calls; set synchronous_standby_names (Patroni: synchronous_mode)"
            ),
        ),
        (true, _) if !facts.get::<_, bool>("sees_all") => (
            Severity::Ok,
            "synchronous_standby_names is set; grant pg_read_all_stats to see whether a standby \
             is connected"
                .to_owned(),
        ),
        (true, _) if synchronous == 0 => (
            Severity::Error,
            "synchronous_standby_names is set, and no synchronous standby is connected: commits \
             wait until one is"
                .to_owned(),
        ),
        (true, _) => (
            Severity::Ok,
            format!("synchronous: {synchronous} of {standbys} standbys"),
        ),
    };
    Finding::new("replication", severity, text)
}

fn commit(facts: &Row) -> Finding {
    let value: &str = facts.get("synchronous_commit");
    let is_replicated = !facts.get::<_, &str>("standby_names").is_empty();
    let (severity, text) = match value {
        "off" => (
            Severity::Error,
            "synchronous_commit is off: a crash of the server loses confirmed requests; set it on",
        ),
        "local" if is_replicated => (
            Severity::Warning,
            "synchronous_commit is local: commits don't wait for the synchronous standby, so a \
             failover loses confirmed requests; set it on",
        ),
        _ => (Severity::Ok, value),
    };
    Finding::new("synchronous_commit", severity, text)
}

fn durability(facts: &Row) -> Finding {
    let off: Vec<&str> = ["fsync", "full_page_writes"]
        .into_iter()
        .filter(|name| facts.get::<_, &str>(*name) == "off")
        .collect();
    if off.is_empty() {
        let text = "fsync and full_page_writes are on";
        return Finding::new("durability", Severity::Ok, text);
    }
    let text = format!(
        "{} off: a crash of the machine may corrupt the database; turn on",
        off.join(" and ")
    );
    Finding::new("durability", Severity::Error, text)
}

/// How far the server's clock is ahead of this machine's, in seconds.
async fn clock_difference(client: &Client) -> Result<f64, tokio_postgres::Error> {
    let sql = "select extract(epoch from pg_catalog.clock_timestamp())::double precision";
    let statement = client.prepare(sql).await?;
    let (sent, started) = (now_s(), Instant::now());
    let row = client.query_one(&statement, &[]).await?;
    // The server read its clock halfway.
    let own = sent + started.elapsed().as_secs_f64() / 2.0;
    Ok(row.get::<_, f64>(0) - own)
}

fn now_s() -> f64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "this machine's clock is what is compared"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn clock_finding(ahead_s: f64) -> Finding {
    let apart = ahead_s.abs();
    let (severity, consequence) = if apart > CLOCK_ERROR.as_secs_f64() {
        let text = ": one of the two is wrong, and codes expire by the server's; synchronise both";
        (Severity::Error, text)
    } else if apart > CLOCK_WARNING.as_secs_f64() {
        (Severity::Warning, ": synchronise both (NTP)")
    } else {
        (Severity::Ok, "")
    };
    let direction = if ahead_s < 0.0 { "behind" } else { "ahead of" };
    let text = format!("{apart:.3} s {direction} this machine's{consequence}");
    Finding::new("clock", severity, text)
}

fn long_transaction(facts: &Row) -> Finding {
    let oldest: Option<f64> = facts.get("oldest_transaction_s");
    let seconds = oldest.unwrap_or_default();
    let whose = if facts.get("sees_all") {
        ""
    } else {
        " of this role"
    };
    if seconds > LONG_TRANSACTION.as_secs_f64() {
        let text = format!(
            "the oldest transaction{whose} is open for {seconds:.0} s: dead rows pile up and \
             every statement gets slower; end it (pg_stat_activity names it)"
        );
        return Finding::new("transactions", Severity::Warning, text);
    }
    let text = format!("none{whose} is open for more than {seconds:.0} s");
    Finding::new("transactions", Severity::Ok, text)
}

fn rights(missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::new(RIGHTS, Severity::Ok, "all that are needed");
    }
    let text = format!(
        "the role lacks {}: let the owner run store/sql/grants.sql",
        missing.join(", ")
    );
    Finding::new(RIGHTS, Severity::Error, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_differ_by_a_second_and_must_not_by_five() {
        for (ahead_s, severity, words) in [
            (0.4, Severity::Ok, "0.400 s ahead of this machine's"),
            (-0.9, Severity::Ok, "0.900 s behind this machine's"),
            (1.5, Severity::Warning, "synchronise"),
            (-1.5, Severity::Warning, "behind"),
            (90.0, Severity::Error, "codes expire by the server's"),
            (-5.1, Severity::Error, "one of the two is wrong"),
        ] {
            let found = clock_finding(ahead_s);
            assert_eq!(found.severity, severity, "{found:?}");
            assert!(found.text.contains(words), "{found:?}");
        }
    }

    #[test]
    fn only_what_makes_work_impossible_prevents_a_start() {
        let missing = ["insert on outbox".to_owned()];
        assert!(rights(&missing).prevents_start());
        assert!(!rights(&[]).prevents_start());
        assert!(!clock_finding(90.0).prevents_start());
        let pooler = pooler::Error::Pooler(pooler::Mode::Transaction);
        assert!(pooler_finding(Err(pooler)).prevents_start());
    }
}
