//! `voice-otp worker`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use voice_otp::dice::Dice;
use voice_otp::engine::{Engine, Works};
use voice_otp::ports::Ports;
use voice_otp_publisher::publisher::Declares;
use voice_otp_publisher::{Publisher, Settings};
use voice_otp_store::ledger::Limits;
use voice_otp_store::{Directory, PgLedger, migrate, pool::Pool};
use voice_otp_twilio::client::{self, Client};

use crate::cli;
use crate::clock::Boot;
use crate::config::{self, WorkerSettings};
use crate::dead::DeadLetters;
use crate::http::{Http, router};
use crate::intake::Intake;
use crate::sink::Sink;
use crate::verb::{Failed, signals};

/// The real ports.
pub(crate) struct Real;

impl Ports for Real {
    type Ledger = PgLedger;
    type Directory = Directory;
    type Caller = Client;
    type Sink = Sink;
}

/// The pause before a database that isn't there yet is tried again.
const START_PAUSE: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: &cli::Worker) -> Result<(), Failed> {
    let settings = config::worker(args)?;
    let listener = TcpListener::bind(&settings.listen)
        .await
        .with_context(|| format!("listen on {}", settings.listen))?;
    let (soft, hard) = signals();
    serve(settings, listener, soft, hard)
        .await
        .map_err(Failed::Error)
}

/// Runs a worker until it is told to stop, then until what is in flight is done or the grace period is over.
pub(crate) async fn serve(
    settings: WorkerSettings,
    listener: TcpListener,
    soft: CancellationToken,
    hard: CancellationToken,
) -> anyhow::Result<()> {
    let pool = voice_otp_store::connect_worker(&settings.database_url, settings.database_pool)?;
    if !wait_for_database(&pool, &soft).await? {
        return Ok(());
    }
    let name = format!("{} {}", hostname(), std::process::id());
    let publisher = Publisher::start(Settings {
        declares: Declares::All,
        // Statuses and dead letters are the workers' whoever that is.
        say_user: false,
        connection_name: format!("{name} statuses"),
        ..Settings::new(settings.amqp_url.clone(), "/voice-otp")
    })?;
    let twilio = Client::new(client::Settings {
        base_url: settings.twilio_url.clone(),
        public_url: settings.public_url.clone(),
        connect_timeout: Duration::from_secs(5),
        timeout: settings.tuning.post_timeout,
    })?;
    let directory = Directory::new(pool.clone(), settings.keys.clone());
    let ledger = PgLedger::new(pool, settings.keys.clone(), limits(&settings));
    let sink = Sink::new(publisher.clone());
    let ports = (ledger, directory.clone(), twilio.clone(), sink);
    let (engine, works): (_, Works<Real>) = Engine::start(
        ports,
        settings.tuning.clone(),
        Dice::from_system(),
        Boot,
        &name,
    )
    .await
    .context("enter the ledger")?;

    let tasks = TaskTracker::new();
    let closed = CancellationToken::new();
    tasks.spawn(directory.listen(settings.database_url.clone(), closed.clone()));
    let intake_up = Arc::new(AtomicBool::new(false));
    let http = Http {
        engine: Arc::clone(&engine),
        twilio,
        publisher: publisher.clone(),
        intake_up: Arc::clone(&intake_up),
    };
    let address = listener.local_addr().context("read the address")?;
    let served = closed.clone();
    tasks.spawn(async move {
        let serving =
            axum::serve(listener, router(http)).with_graceful_shutdown(served.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the HTTP side failed"
            );
        }
    });
    tracing::info!(%address, worker = name, callbacks = settings.public_url.is_some(), "worker started");

    let dead = DeadLetters {
        publisher: publisher.clone(),
        keys: settings.keys.clone(),
    };
    let intake = Intake {
        engine: Arc::clone(&engine),
        dead,
        url: settings.amqp_url.clone(),
        name,
        prefetch: settings.prefetch,
        group: settings.tuning.group,
        up: intake_up,
    };
    // The engine stops when intake has: what is taken in is not dropped on its way.
    let drained = CancellationToken::new();
    let engine_task = tasks.spawn(Arc::clone(&engine).run(works, drained.clone(), hard.clone()));
    let intake_task = tasks.spawn(intake.run(soft.clone()));

    soft.cancelled().await;
    tracing::info!("stopping: finishing what is in flight, a second signal stops at once");
    let draining = async {
        if let Err(error) = intake_task.await {
            tracing::error!(error = &error as &dyn std::error::Error, "intake failed");
        }
        drained.cancel();
        if let Err(error) = engine_task.await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the engine failed"
            );
        }
    };
    tokio::pin!(draining);
    let drained_in_time = tokio::select! {
        () = &mut draining => true,
        () = tokio::time::sleep(settings.grace) => {
            tracing::warn!("the grace period is over; what is left is settled by other workers");
            false
        }
        () = hard.cancelled() => {
            tracing::warn!("stopping at once; what is left is settled by other workers");
            false
        }
    };
    hard.cancel();
    if !drained_in_time {
        // The engine still hands its deliveries back.
        drop(tokio::time::timeout(Duration::from_secs(2), draining).await);
    }
    closed.cancel();
    tasks.close();
    drop(tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await);
    drop(tokio::time::timeout(Duration::from_secs(3), publisher.close()).await);
    let counts = engine.counts();
    tracing::info!(
        admitted = counts.admitted.load(std::sync::atomic::Ordering::Relaxed),
        placed = counts.placed.load(std::sync::atomic::Ordering::Relaxed),
        ended = counts.ended.load(std::sync::atomic::Ordering::Relaxed),
        "worker stopped"
    );
    Ok(())
}

/// Waits for a database that isn't there; false if told to stop meanwhile. One that isn't migrated is an error.
async fn wait_for_database(pool: &Pool, soft: &CancellationToken) -> anyhow::Result<bool> {
    let mut failing = false;
    loop {
        match migrate::check(pool).await {
            Ok(()) => return Ok(true),
            Err(error @ (migrate::Error::Connect(_) | migrate::Error::Read(_))) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "can't reach the database, trying again"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(START_PAUSE) => {}
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
