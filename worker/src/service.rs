//! A running worker: the core's engine with its real ports, the intake and the HTTP server.

mod clock;
mod dead_letters;
mod http;
mod intake;
mod metrics;
pub mod sink;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::engine::rng::SharedRng;
use voice_otp::engine::{BackgroundTasks, Counts, Engine};
use voice_otp::ports::Ports;
use voice_otp_publisher::publisher::TopologyScope;
use voice_otp_publisher::{Publisher, Settings, connection};
use voice_otp_store::grants::Program;
use voice_otp_store::ledger::Limits;
use voice_otp_store::{Directory, Health, PgLedger, migrate, pool::Pool};
use voice_otp_twilio::client::{self, Client};

use crate::config::WorkerSettings;
use crate::server_check;
use clock::BootClock;
use dead_letters::DeadLetters;
use http::{CallbackGuard, Http};
use intake::Intake;
use sink::Sink;

/// PostgreSQL, Twilio and RabbitMQ.
struct ProductionPorts;

impl Ports for ProductionPorts {
    type Ledger = PgLedger;
    type Directory = Directory;
    type Telephony = Client;
    type Sink = Sink;
}

/// The pause between two tries to reach the database at start.
const DATABASE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The timeout of a TCP and TLS connection to Twilio.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the engine may take to release its deliveries once it was stopped at once.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the HTTP server and the settings listener may take to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the publisher may take to close its connection.
const PUBLISHER_CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs a worker until `soft` is cancelled, then until what is in flight is finished, the grace
/// period has passed, or `hard` is cancelled.
///
/// # Errors
/// When the database isn't migrated, or a setting can't be used. A database or broker that can't
/// be reached is waited for.
pub(crate) async fn serve(
    settings: WorkerSettings,
    listener: TcpListener,
    soft: CancellationToken,
    hard: CancellationToken,
) -> anyhow::Result<()> {
    let pool = voice_otp_store::connect_worker(&settings.database_url, settings.database_pool)?;
    if !wait_for_database(&pool, &settings.database_url, &soft).await? {
        return Ok(());
    }
    let name = format!("{} {}", hostname(), std::process::id());
    let publisher = statuses_publisher(&settings, &name)?;
    let twilio = Client::new(client::Settings {
        base_url: settings.twilio_url.clone(),
        public_url: settings.public_url.clone(),
        connect_timeout: CONNECT_TIMEOUT,
        timeout: settings.tuning.post_timeout,
    })?;
    let health = Health::default();
    let directory = Directory::new(pool.clone(), settings.keys.clone(), health.clone());
    let ledger = PgLedger::new(
        pool,
        settings.keys.clone(),
        limits(&settings),
        health.clone(),
    )?;
    let sink = Sink::new(publisher.clone());
    let ports = (ledger, directory.clone(), twilio.clone(), sink);
    let (engine, background): (_, BackgroundTasks<ProductionPorts>) = Engine::start(
        ports,
        settings.tuning.clone(),
        SharedRng::from_system(settings.keys.clone()),
        BootClock,
        &name,
    )
    .await
    .context("register the worker")?;

    let tasks = TaskTracker::new();
    let closed = CancellationToken::new();
    tasks.spawn(
        directory
            .clone()
            .listen(settings.database_url.clone(), closed.clone()),
    );
    let dead_letters = DeadLetters::start(&settings, &name, &closed, &tasks);
    let is_consuming = Arc::new(AtomicBool::new(false));
    let address = listener.local_addr().context("read the address")?;
    let http = Http {
        engine: Arc::clone(&engine),
        directory,
        twilio,
        callbacks: CallbackGuard::new(settings.keys.clone()),
        publisher: publisher.clone(),
        dead_letters: Arc::clone(&dead_letters),
        is_consuming: Arc::clone(&is_consuming),
        health,
    };
    tasks.spawn(http::serve(http, listener, closed.clone()));
    tracing::info!(
        %address,
        worker = name,
        callbacks = settings.public_url.is_some(),
        "worker started"
    );

    let intake = Intake {
        engine: Arc::clone(&engine),
        dead_letters,
        url: settings.amqp_url.clone(),
        name,
        prefetch: settings.prefetch,
        lanes: settings.lanes,
        max_batch: settings.tuning.max_batch,
        is_consuming,
    };
    // The engine stops after the intake, so that every message that was received is processed.
    let drained = CancellationToken::new();
    let engine_run = Arc::clone(&engine).run(background, drained.clone(), hard.clone());
    let engine_task = tasks.spawn(engine_run);
    let intake_task = tasks.spawn(intake.run(soft.clone()));

    soft.cancelled().await;
    let draining = async {
        if let Err(error) = intake_task.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the intake failed"
            );
        }
        drained.cancel();
        if let Err(error) = engine_task.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the engine failed"
            );
        }
    };
    drain(draining, settings.grace, &hard).await;
    closed.cancel();
    tasks.close();
    drop(tokio::time::timeout(CLOSE_TIMEOUT, tasks.wait()).await);
    drop(tokio::time::timeout(PUBLISHER_CLOSE_TIMEOUT, publisher.close()).await);
    log_end(engine.counts());
    Ok(())
}

fn log_end(counts: &Counts) {
    tracing::info!(
        deliveries_admitted = counts.admitted.load(Ordering::Relaxed),
        calls_placed = counts.placed.load(Ordering::Relaxed),
        final_statuses = counts.final_statuses.load(Ordering::Relaxed),
        "worker stopped"
    );
}

/// The publisher of statuses and prices.
fn statuses_publisher(
    settings: &WorkerSettings,
    name: &str,
) -> Result<Publisher, connection::Error> {
    Publisher::start(Settings {
        // The intake declares the rest.
        declare: TopologyScope::Statuses,
        // Statuses are the system's own, whichever user the workers connect as.
        set_user_id: false,
        connection_name: format!("{name} statuses"),
        ..Settings::new(settings.amqp_url.clone(), "/voice-otp")
    })
}

/// Waits for `draining` until the grace period has passed or `hard` is cancelled; then cancels
/// `hard`, and gives the engine a moment to release its deliveries.
async fn drain(draining: impl Future<Output = ()>, grace: Duration, hard: &CancellationToken) {
    tracing::info!("stopping: finishing what is in flight; a second signal stops at once");
    tokio::pin!(draining);
    let is_drained = tokio::select! {
        () = &mut draining => true,
        () = tokio::time::sleep(grace) => {
            tracing::warn!("the grace period has passed; other workers settle what is unfinished");
            false
        }
        () = hard.cancelled() => {
            tracing::warn!("stopping at once; other workers settle what is unfinished");
            false
        }
    };
    hard.cancel();
    if !is_drained {
        drop(tokio::time::timeout(RELEASE_TIMEOUT, draining).await);
    }
}

/// Waits until the database can be reached. Returns false if `soft` is cancelled first. A database
/// that isn't migrated is an error, and so is one that a worker can't work with.
async fn wait_for_database(
    pool: &Pool,
    url: &SecretString,
    soft: &CancellationToken,
) -> anyhow::Result<bool> {
    if !server_check::wait(url, Program::Worker, soft).await? {
        return Ok(false);
    }
    let mut failing = false;
    loop {
        match migrate::check(pool).await {
            Ok(()) => return Ok(true),
            Err(
                error @ (migrate::Error::Connect(_)
                | migrate::Error::TimedOut
                | migrate::Error::Read(_)),
            ) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "database unavailable; retrying"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(DATABASE_RETRY_PAUSE) => {}
            () = soft.cancelled() => return Ok(false),
        }
    }
}

fn limits(settings: &WorkerSettings) -> Limits {
    let tuning = &settings.tuning;
    Limits {
        lease: tuning.lease,
        begin_ahead: tuning.begin_ahead,
        slot_late: tuning.slot_late,
        hold_ahead: tuning.hold_ahead,
        claim_ahead: tuning.claim_ahead,
        rescue: tuning.post_timeout * 2 + tuning.lease,
        forgotten: tuning.sweep_age,
        recent: tuning.longest_life * 2,
        retention: settings.retention,
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "worker".to_owned(), |name| name.trim().to_owned())
}
