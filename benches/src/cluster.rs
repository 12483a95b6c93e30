//! Three workers under load on the servers of `./dev cluster chaos`, while one server or worker
//! after the other is killed, frozen and cut off. Afterwards the calls at Twilio and the published
//! statuses are compared with what was published.

mod balancer;
mod faults;
mod servers;
mod stall;
mod table;
mod traffic;
mod verdict;
mod workers;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::balancer::{Balancer, First};
use self::faults::{Fault, InjectedFault};
use self::servers::Servers;
use self::traffic::Traffic;
use self::verdict::Verdict;
use self::workers::Workers;
use crate::database::{Account, Database};
use crate::twilio::Simulated;

/// The tenants, of which each has a lane. They share an account.
const TENANTS: usize = 30;
/// The account's calls per second. The load is lower.
const CALLS_PER_SECOND: f64 = 500.0;
/// How long everything works between two faults, so that the nodes' queues catch up.
const QUIET: Duration = Duration::from_secs(5);
/// How long placing may take to begin again after a fault, before the next one happens anyway.
const PLACING_AGAIN: Duration = Duration::from_mins(1);

/// What the command line asks for.
struct Plan {
    length: Duration,
    /// Requests per second.
    rate: u32,
    faults: Vec<Fault>,
    /// How long a server is frozen or cut off.
    freeze: Duration,
}

impl Plan {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let (mut length, mut rate) = (Duration::from_mins(5), 100);
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                anyhow::bail!("{pair:?} has no value");
            };
            let value: u32 = value
                .parse()
                .ok()
                .filter(|value| *value > 0)
                .with_context(|| format!("{name} takes a number of at least 1"))?;
            match name.as_str() {
                "--seconds" => length = Duration::from_secs(value.into()),
                "--minutes" => length = Duration::from_mins(value.into()),
                "--rate" => rate = value,
                _ => anyhow::bail!("it takes --seconds, --minutes and --rate, not {name}"),
            }
        }
        let is_short = length < Duration::from_mins(2);
        Ok(Self {
            length,
            rate,
            faults: if is_short {
                Fault::SHORT.to_vec()
            } else {
                Fault::ALL.to_vec()
            },
            // Longer than every time-out and heartbeat; in a short run longer than most.
            freeze: Duration::from_secs(if is_short { 20 } else { 40 }),
        })
    }
}

/// Runs the faults. Returns whether everything came out right.
pub(crate) async fn run(arguments: &[String]) -> anyhow::Result<bool> {
    let plan = Plan::parse(arguments)?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = chaos(&plan) => result,
        // What was started is killed when it is dropped, frozen or not.
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn chaos(plan: &Plan) -> anyhow::Result<bool> {
    let account = Account {
        number: 1,
        calls_per_second: CALLS_PER_SECOND,
        tenants: (0..TENANTS).map(|n| format!("t{n}")).collect(),
    };
    let servers = Servers::find().await?;
    let fenced_before = servers.fencing()?.len();
    let database = Database::fresh().await?;
    let accounts = [account];
    database.tenants(&accounts).await?;
    let [account] = accounts;
    let twilio = Simulated::start(&[Account {
        calls_per_second: 1e6,
        tenants: Vec::new(),
        ..account
    }])
    .await?;
    let publishers = Balancer::before(servers.nodes_from(0), First::Fixed).await?;
    let subscribers = Balancer::before(servers.nodes_from(1), First::Fixed).await?;
    traffic::declare(&servers.amqp_url(&publishers.address)).await?;
    let mut workers = Workers::start(&servers, &database, &twilio.url).await?;

    let (traffic, tasks) = (Traffic::default(), TaskTracker::new());
    let (published, received) = (CancellationToken::new(), CancellationToken::new());
    let subscribing = {
        let (traffic, url) = (traffic.clone(), servers.amqp_url(&subscribers.address));
        let stop = received.clone();
        tasks.spawn(async move { traffic.subscribe(url, stop).await })
    };
    let publishing = {
        let (traffic, url) = (traffic.clone(), servers.amqp_url(&publishers.address));
        let (tenants, rate, stop) = (account.tenants.clone(), plan.rate, published.clone());
        tasks.spawn(async move { traffic.publish(url, rate, tenants, stop).await })
    };
    let mut injected = Vec::new();
    let ended = inject_in_turn(plan, &servers, &mut workers, &twilio, &mut injected).await;
    published.cancel();
    publishing.await??;
    settle(&traffic).await;
    received.cancel();
    subscribing.await?;

    let calls = twilio.calls().await?;
    let log = servers.amqp_url(&subscribers.address);
    let only_in_log = traffic.read_log(&log).await?;
    let (requests, statuses, received) = traffic.take();
    let verdict = Verdict::of(&requests, &calls, &statuses);
    let fencing = servers.fencing()?.split_off(fenced_before);
    table::print_faults(&injected, &requests, &calls);
    table::print_verdict(&verdict, received, only_in_log, &fencing);
    table::print_examples(&verdict, &requests, &calls, &statuses);
    // Also if a fault could not be repaired, what had come of the requests is shown.
    ended?;
    workers.stop().await?;
    twilio.stop().await?;
    Ok(verdict.is_good() && !fencing.iter().any(|line| line.contains("COMMITTED")))
}

/// Lets the faults happen, each at least once, for the planned time.
async fn inject_in_turn(
    plan: &Plan,
    servers: &Servers,
    workers: &mut Workers,
    twilio: &Simulated,
    injected: &mut Vec<InjectedFault>,
) -> anyhow::Result<()> {
    let start = Instant::now();
    placing_again(twilio, plan.rate).await?;
    for (n, fault) in plan.faults.iter().cycle().enumerate() {
        tokio::time::sleep(QUIET).await;
        if n >= plan.faults.len() && start.elapsed() >= plan.length {
            break;
        }
        // The rest of a short run passes without a fault.
        if n >= plan.faults.len() && plan.length < Duration::from_mins(2) {
            tokio::time::sleep(plan.length.saturating_sub(start.elapsed())).await;
            break;
        }
        let one = fault.inject(servers, workers, plan.freeze).await?;
        let again = placing_again(twilio, plan.rate).await?;
        println!(
            "{:>4} s  {}{}",
            start.elapsed().as_secs(),
            one.what,
            if again {
                ""
            } else {
                ": calls are not placed again"
            }
        );
        injected.push(one);
    }
    Ok(())
}

/// Waits until calls are placed at half of the rate. Returns whether they are.
async fn placing_again(twilio: &Simulated, rate: u32) -> anyhow::Result<bool> {
    let (start, mut before) = (Instant::now(), twilio.calls_created().await?);
    while start.elapsed() < PLACING_AGAIN {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let created = twilio.calls_created().await?;
        if created - before >= u64::from(rate.div_ceil(2)) {
            return Ok(true);
        }
        before = created;
    }
    Ok(false)
}

/// Waits until every confirmed request has ended, or should have, and for what may come after it.
async fn settle(traffic: &Traffic) {
    let start = Instant::now();
    while traffic.open() > 0 && start.elapsed() < traffic::LONGEST {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
}
