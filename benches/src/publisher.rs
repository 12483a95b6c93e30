//! How fast 16 tasks get requests confirmed by a quorum queue, and whether any report is false.
//!
//! Two ways of publishing, in turn for several rounds: every task waits for each confirm before its
//! next request ([`Publisher::request`]), or has a window of unconfirmed requests
//! ([`Publisher::enqueue`]). Every fifth message of the windowed rounds is unroutable. The reports
//! are compared with the messages, and with the queue at the end.

use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::task::TaskTracker;
use voice_otp_publisher::{Message, PublishError, Publisher, Settings, event, topology};
use voice_otp_schemas::envelope::Trace;
use voice_otp_schemas::request::Requested;
use voice_otp_schemas::{Context, DeliveryId, OtpCode, PhoneNumber, TenantId, Timestamp};

use crate::broker::Vhost;

const ROUNDS: usize = 5;
const TASKS: usize = 16;
const REQUESTS_PER_TASK: usize = 2_000;
/// The unconfirmed requests of one task, where it doesn't wait for each confirm.
const WINDOW: usize = 32;

/// The result of a round.
struct Round {
    stored: usize,
    /// Messages that were reported as stored and were not, or the other way round.
    false_reports: usize,
    taken: Duration,
}

pub(crate) async fn run() -> anyhow::Result<bool> {
    let vhost = Vhost::fresh().await?;
    let publisher = Publisher::start(Settings::new(vhost.url.clone(), "/bench"))?;
    publisher.request(&request("warm-up", 0)?).await?;
    let (mut one_by_one, mut windowed) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        one_by_one.push(waiting_for_each(&publisher, round).await?);
        windowed.push(in_windows(&publisher, round).await?);
    }
    publisher.close().await;
    // The queue's count lags a little behind its confirms.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let queued = usize::try_from(
        vhost
            .depth(&topology::lane_queue(topology::lane_of(&TenantId::parse(
                "bench",
            )?)))
            .await?,
    )?;
    vhost.delete().await?;

    let stored = 1 + one_by_one
        .iter()
        .chain(&windowed)
        .map(|round| round.stored)
        .sum::<usize>();
    let false_reports = one_by_one
        .iter()
        .chain(&windowed)
        .map(|round| round.false_reports)
        .sum::<usize>();
    println!(
        "{TASKS} tasks, one publisher, quorum queue, {} messages per round, {ROUNDS} rounds",
        TASKS * REQUESTS_PER_TASK
    );
    println!(
        "{:<58} {:>8} {:>8} {:>8}  confirmed/s",
        "", "min", "median", "max"
    );
    for (what, rounds) in [
        ("each task waits for each confirm", &one_by_one),
        (
            "each task has 32 unconfirmed, every fifth unroutable",
            &windowed,
        ),
    ] {
        let mut rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
        rates.sort_by(f64::total_cmp);
        let at = |place: usize| rates.get(place).copied().unwrap_or_default();
        println!(
            "{what:<58} {:>8.0} {:>8.0} {:>8.0}",
            at(0),
            at(rates.len() / 2),
            at(rates.len() - 1)
        );
    }
    println!(
        "reported as stored: {stored}; in the queue: {queued}; false reports: {false_reports}"
    );
    Ok(false_reports == 0 && stored == queued)
}

impl Round {
    /// Answers per second, of any kind: the broker also answers unroutable messages.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand messages")]
    fn rate(&self) -> f64 {
        (TASKS * REQUESTS_PER_TASK) as f64 / self.taken.as_secs_f64()
    }
}

async fn waiting_for_each(publisher: &Publisher, round: usize) -> anyhow::Result<Round> {
    let (tasks, start) = (TaskTracker::new(), Instant::now());
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let publisher = publisher.clone();
            tasks.spawn(async move {
                for n in 0..REQUESTS_PER_TASK {
                    publisher
                        .request(&request(&format!("each-{round}-{task}-{n}"), n)?)
                        .await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in running {
        task.await??;
    }
    Ok(Round {
        stored: TASKS * REQUESTS_PER_TASK,
        false_reports: 0,
        taken: start.elapsed(),
    })
}

async fn in_windows(publisher: &Publisher, round: usize) -> anyhow::Result<Round> {
    let (tasks, start) = (TaskTracker::new(), Instant::now());
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let publisher = publisher.clone();
            tasks.spawn(
                async move { window_of(&publisher, &format!("window-{round}-{task}")).await },
            )
        })
        .collect();
    let mut sum = Round {
        stored: 0,
        false_reports: 0,
        taken: Duration::ZERO,
    };
    for task in running {
        let (stored, false_reports) = task.await??;
        sum.stored += stored;
        sum.false_reports += false_reports;
    }
    Ok(Round {
        taken: start.elapsed(),
        ..sum
    })
}

/// Publishes one task's share. Returns the number of messages reported as stored, and that of false
/// reports.
async fn window_of(publisher: &Publisher, name: &str) -> anyhow::Result<(usize, usize)> {
    let (mut stored, mut false_reports) = (0, 0);
    let mut unconfirmed = FuturesUnordered::new();
    for n in 0..REQUESTS_PER_TASK {
        let mut message = message(&format!("{name}-{n}"), n)?;
        let routable = !n.is_multiple_of(5);
        if !routable {
            "unroutable".clone_into(&mut message.routing_key);
        }
        let answer = publisher.enqueue(message).await?;
        unconfirmed.push(async move { (routable, answer.await) });
        if unconfirmed.len() >= WINDOW {
            count(unconfirmed.next().await, &mut stored, &mut false_reports);
        }
    }
    while let Some(answered) = unconfirmed.next().await {
        count(Some(answered), &mut stored, &mut false_reports);
    }
    Ok((stored, false_reports))
}

type Answered<E> = (bool, Result<Result<(), PublishError>, E>);

fn count<E>(answered: Option<Answered<E>>, stored: &mut usize, false_reports: &mut usize) {
    let Some((routable, answer)) = answered else {
        return;
    };
    *stored += usize::from(matches!(answer, Ok(Ok(()))));
    *false_reports += usize::from(!matches!(
        (routable, answer),
        (true, Ok(Ok(()))) | (false, Ok(Err(PublishError::Unroutable(_))))
    ));
}

fn message(id: &str, n: usize) -> anyhow::Result<Message> {
    Ok(event::message(request(id, n)?.to_json("/bench"))?)
}

fn request(id: &str, n: usize) -> anyhow::Result<Requested> {
    let now = Timestamp::from(SystemTime::now());
    Ok(Requested {
        tenant_id: TenantId::parse("acme")?,
        delivery_id: DeliveryId::parse(id)?,
        to: PhoneNumber::parse(&format!("+1415555{:04}", n % 10_000))?,
        code: OtpCode::parse("493027")?,
        expires_at: now + Duration::from_mins(3),
        locale: None,
        user_ref: None,
        extension: None,
        context: Context::default(),
        time: Some(now),
        trace: Trace::default(),
    })
}
