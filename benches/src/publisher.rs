//! How fast sixteen tasks get requests confirmed by a quorum queue, and whether any is told a lie.
//!
//! Two ways of publishing, several rounds of each in turn: every task waits for each confirm before its next request
//! ([`Publisher::request`]), or has a window of requests on their way ([`Publisher::post`]). Every fifth message of the
//! windowed rounds has a routing key that leads nowhere: what was reported as stored is compared with what is told from
//! the message itself, and with what the queue holds at the end.

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
const REQUESTS_A_TASK: usize = 2_000;
/// Requests of one task on their way at once, where it doesn't wait for each.
const WINDOW: usize = 32;

/// What a round showed.
struct Round {
    stored: usize,
    /// Reported as stored, and not; or the other way round.
    lies: usize,
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
    // The queue's own count lags behind its confirms a little.
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
    let lies = one_by_one
        .iter()
        .chain(&windowed)
        .map(|round| round.lies)
        .sum::<usize>();
    println!(
        "{TASKS} tasks, one publisher, quorum queue, {} messages a round, {ROUNDS} rounds",
        TASKS * REQUESTS_A_TASK
    );
    println!(
        "{:<58} {:>8} {:>8} {:>8}  confirmed/s",
        "", "min", "median", "max"
    );
    for (what, rounds) in [
        ("each task waits for each confirm", &one_by_one),
        (
            "each task has 32 on their way, every fifth unroutable",
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
    println!("reported as stored: {stored}; in the queue: {queued}; lies: {lies}");
    Ok(lies == 0 && stored == queued)
}

impl Round {
    /// Answers a second, whatever they say: an unroutable message is answered by the broker like any other.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand messages")]
    fn rate(&self) -> f64 {
        (TASKS * REQUESTS_A_TASK) as f64 / self.taken.as_secs_f64()
    }
}

async fn waiting_for_each(publisher: &Publisher, round: usize) -> anyhow::Result<Round> {
    let (tasks, start) = (TaskTracker::new(), Instant::now());
    let running: Vec<_> = (0..TASKS)
        .map(|task| {
            let publisher = publisher.clone();
            tasks.spawn(async move {
                for n in 0..REQUESTS_A_TASK {
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
        stored: TASKS * REQUESTS_A_TASK,
        lies: 0,
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
        lies: 0,
        taken: Duration::ZERO,
    };
    for task in running {
        let (stored, lies) = task.await??;
        sum.stored += stored;
        sum.lies += lies;
    }
    Ok(Round {
        taken: start.elapsed(),
        ..sum
    })
}

/// Publishes one task's share; gives what was reported as stored, and the lies.
async fn window_of(publisher: &Publisher, name: &str) -> anyhow::Result<(usize, usize)> {
    let (mut stored, mut lies) = (0, 0);
    let mut under_way = FuturesUnordered::new();
    for n in 0..REQUESTS_A_TASK {
        let mut message = message(&format!("{name}-{n}"), n)?;
        let routable = !n.is_multiple_of(5);
        if !routable {
            "leads.nowhere".clone_into(&mut message.routing_key);
        }
        let answer = publisher.post(message).await?;
        under_way.push(async move { (routable, answer.await) });
        if under_way.len() >= WINDOW {
            note(under_way.next().await, &mut stored, &mut lies);
        }
    }
    while let Some(answered) = under_way.next().await {
        note(Some(answered), &mut stored, &mut lies);
    }
    Ok((stored, lies))
}

type Answered<E> = (bool, Result<Result<(), PublishError>, E>);

fn note<E>(answered: Option<Answered<E>>, stored: &mut usize, lies: &mut usize) {
    let Some((routable, answer)) = answered else {
        return;
    };
    *stored += usize::from(matches!(answer, Ok(Ok(()))));
    *lies += usize::from(!matches!(
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
