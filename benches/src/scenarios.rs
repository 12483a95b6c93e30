//! The measurements besides throughput: latency, rate limits, isolation and growth.

mod flood;
mod growth;
mod hopeless;
mod latency;
mod neighbours;
mod pace;
mod viewers;

use std::collections::HashMap;

pub(crate) use flood::run as flood;
pub(crate) use growth::run as growth;
pub(crate) use hopeless::run as hopeless;
pub(crate) use latency::run as latency;
pub(crate) use neighbours::run as neighbours;
pub(crate) use pace::run as pace;
pub(crate) use viewers::run as viewers;

use crate::database::Account;
use crate::report::share;

/// No account with a special behaviour.
fn default_behaviours() -> HashMap<String, crate::twilio::Behaviour> {
    HashMap::new()
}

/// Accounts with one tenant each, whose rate limits are higher than the load.
fn one_tenant_each(accounts: usize) -> Vec<Account> {
    (0..accounts)
        .map(|number| Account::with_one_tenant(number, 100.0))
        .collect()
}

/// Prints the percentiles of latencies, of which `wanted` were expected.
fn print_latencies(what: &str, latencies_ms: &[f64], wanted: usize) {
    let at = |place| share(latencies_ms, place);
    println!(
        "  {what:<44} p50 {:>8.1}  p99 {:>8.1}  p99.9 {:>8.1}  max {:>8.1} ms   {} of {wanted}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        latencies_ms.len()
    );
}
