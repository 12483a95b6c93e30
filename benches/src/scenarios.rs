//! What the numbers in the design are about: latency, the account's pace, floods, bad neighbours, growth.

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

/// No moods.
fn calm() -> HashMap<String, crate::twilio::Mood> {
    HashMap::new()
}

/// So many accounts, a tenant each, none of which its pace holds.
fn alone(accounts: usize) -> Vec<Account> {
    (0..accounts)
        .map(|number| Account::alone(number, 100.0))
        .collect()
}

fn tell(what: &str, waits_ms: &[f64], wanted: usize) {
    let at = |place| share(waits_ms, place);
    println!(
        "  {what:<44} p50 {:>8.1}  p99 {:>8.1}  p99.9 {:>8.1}  max {:>8.1} ms   {} of {wanted}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        waits_ms.len()
    );
}
