//! Metrics for Prometheus, read from the engine's counts at every scrape.
//!
//! Counters are of this process and start at 0; each series exists from the start. All names begin
//! with `voice_otp_`.
//!
//! | event | metric | kind | labels |
//! |---|---|---|---|
//! | a delivery is admitted by this process | `deliveries_admitted_total` | counter | |
//! | Twilio accepts a call | `calls_placed_total` | counter | |
//! | a final status is saved by this process | `final_statuses_total` | counter | |
//! | a redial is scheduled | `redials_total` | counter | |
//! | Twilio reports the price of a call | `call_prices_received_total` | counter | |
//! | a call that belongs to no delivery is hung up | `orphaned_calls_total` | counter | |
//! | a circuit opens: consecutive failures at Twilio, or rejected credentials | `circuits_opened_total` | counter | `kind`: `account`, `credentials` |
//! | the database's clock is set by more than a second, or another server has another clock | `database_clock_steps_total` | counter | |
//! | a dead letter is stored | `dead_letters_total` | counter | |
//! | a message that can't be read is acknowledged without a dead letter | `dead_letters_dropped_total` | counter | `cause`: `budget` (of its publisher), `refused` (by the broker) |
//! | a copy of a message in another queue, made by its header `CC`, is acknowledged unread | `message_copies_total` | counter | |
//! | a message waits for the broker to store its dead letter, or no longer | `dead_letters_waiting` | gauge | |
//! | a permit of `VOICE_OTP_CONCURRENCY` is acquired or released | `attempts_in_flight` | gauge | |
//! | this worker acquires or releases a delivery | `deliveries_owned` | gauge | |
//! | a delivery of any worker has no final status long after its code's expiry; must be 0 | `overdue_deliveries` | gauge | |
//! | a status is not published again, since a queue refused or didn't confirm it too often | `statuses_given_up_total` | counter | `cause`: `refused`, `unconfirmed` |
//! | a second final status of a delivery is published; must be 0 | `duplicate_final_statuses_total` | counter | |

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use voice_otp::engine::{Counts, Engine};
use voice_otp::ports::Ports;

use super::dead_letters;

/// The content type of `OpenMetrics` text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The values of all metrics at one moment.
#[derive(Debug)]
struct Snapshot {
    deliveries_admitted: u64,
    calls_placed: u64,
    final_statuses: u64,
    redials: u64,
    call_prices_received: u64,
    orphaned_calls: u64,
    account_circuits: u64,
    credential_circuits: u64,
    statuses_refused: u64,
    statuses_unconfirmed: u64,
    duplicate_final_statuses: u64,
    clock_steps: u64,
    dead_letters: u64,
    dead_letters_over_budget: u64,
    dead_letters_refused: u64,
    dead_letters_waiting: u64,
    message_copies: u64,
    overdue_deliveries: u64,
    attempts_in_flight: usize,
    deliveries_owned: usize,
}

/// All metrics as text.
pub(super) fn text<P: Ports>(
    engine: &Arc<Engine<P>>,
    dead_letters: &dead_letters::Counts,
) -> Result<String, fmt::Error> {
    Snapshot::new(
        engine.counts(),
        dead_letters,
        engine.attempts_in_flight(),
        engine.deliveries_owned(),
    )
    .text()
}

impl Snapshot {
    fn new(
        counts: &Counts,
        dead_letters: &dead_letters::Counts,
        attempts_in_flight: usize,
        deliveries_owned: usize,
    ) -> Self {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Self {
            deliveries_admitted: read(&counts.admitted),
            calls_placed: read(&counts.placed),
            final_statuses: read(&counts.final_statuses),
            redials: read(&counts.redials),
            call_prices_received: read(&counts.call_prices),
            orphaned_calls: read(&counts.orphaned_calls),
            account_circuits: read(&counts.account_circuits),
            credential_circuits: read(&counts.credential_circuits),
            statuses_refused: read(&counts.statuses_refused),
            statuses_unconfirmed: read(&counts.statuses_unconfirmed),
            duplicate_final_statuses: read(&counts.duplicate_final_statuses),
            clock_steps: read(&counts.clock_steps),
            dead_letters: read(&dead_letters.stored),
            dead_letters_over_budget: read(&dead_letters.over_budget),
            dead_letters_refused: read(&dead_letters.refused),
            dead_letters_waiting: read(&dead_letters.waiting),
            message_copies: read(&dead_letters.copies),
            overdue_deliveries: read(&counts.overdue_deliveries),
            attempts_in_flight,
            deliveries_owned,
        }
    }

    fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("voice_otp");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = [
            (
                "deliveries_admitted",
                "Deliveries admitted by this process",
                self.deliveries_admitted,
            ),
            (
                "calls_placed",
                "Calls accepted by Twilio",
                self.calls_placed,
            ),
            (
                "final_statuses",
                "Final statuses published",
                self.final_statuses,
            ),
            ("redials", "Redials scheduled", self.redials),
            (
                "call_prices_received",
                "Prices of calls reported by Twilio",
                self.call_prices_received,
            ),
            (
                "orphaned_calls",
                "Calls that belonged to no delivery and were hung up",
                self.orphaned_calls,
            ),
            (
                "duplicate_final_statuses",
                "Deliveries with a second final status, must be 0",
                self.duplicate_final_statuses,
            ),
            (
                "database_clock_steps",
                "Times that the database's clock was set by more than a second",
                self.clock_steps,
            ),
            (
                "dead_letters",
                "Dead letters stored in the queue voice-otp.dead",
                self.dead_letters,
            ),
            (
                "message_copies",
                "Copies of messages, made by the header CC, that were acknowledged unread",
                self.message_copies,
            ),
        ];
        for (name, help, value) in counters {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        self.encode_families(&mut encoder)?;
        let gauges = [
            (
                "attempts_in_flight",
                "Attempts in flight, of VOICE_OTP_CONCURRENCY",
                gauge(self.attempts_in_flight),
            ),
            (
                "deliveries_owned",
                "Deliveries owned by this worker",
                gauge(self.deliveries_owned),
            ),
            (
                "overdue_deliveries",
                "Deliveries of all workers without a final status long after expiry, must be 0",
                gauge(self.overdue_deliveries),
            ),
            (
                "dead_letters_waiting",
                "Messages that wait for the broker to store their dead letters",
                gauge(self.dead_letters_waiting),
            ),
        ];
        for (name, help, value) in gauges {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// The counters that have a label.
    fn encode_families(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let families = [
            (
                "circuits_opened",
                "Circuits opened for failures at Twilio (account) or rejected credentials",
                "kind",
                [
                    ("account", self.account_circuits),
                    ("credentials", self.credential_circuits),
                ],
            ),
            (
                "dead_letters_dropped",
                "Unreadable messages without a dead letter: over their publisher's budget, or \
                 refused by the broker",
                "cause",
                [
                    ("budget", self.dead_letters_over_budget),
                    ("refused", self.dead_letters_refused),
                ],
            ),
            (
                "statuses_given_up",
                "Statuses not published again, since a queue refused or did not confirm them",
                "cause",
                [
                    ("refused", self.statuses_refused),
                    ("unconfirmed", self.statuses_unconfirmed),
                ],
            ),
        ];
        for (name, help, label, values) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (kind, value) in values {
                ConstCounter::new(value).encode(family.encode_family(&[(label, kind)])?)?;
            }
        }
        Ok(())
    }
}

/// The library's gauges are signed.
fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_from_the_start() {
        let text = Snapshot::new(&Counts::default(), &dead_letters::Counts::default(), 0, 0)
            .text()
            .unwrap();
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!("metrics", text);
        });
    }
}
