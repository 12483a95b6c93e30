//! Metrics for Prometheus, read from the engine's counts whenever they are asked for.
//!
//! | metric | kind | what |
//! |---|---|---|
//! | `voice_otp_deliveries_admitted_total` | counter | deliveries that became durable here |
//! | `voice_otp_calls_placed_total` | counter | calls that Twilio took from here |
//! | `voice_otp_deliveries_ended_total` | counter | final statuses said by this worker |
//! | `voice_otp_redials_total` | counter | calls to be placed again, since one reached nobody |
//! | `voice_otp_prices_total` | counter | prices of calls that were told |
//! | `voice_otp_stray_calls_total` | counter | calls that were no delivery's any more, hung up: somebody should look |
//! | `voice_otp_account_circuits_total` | counter | circuits opened here for an account whose calls met trouble at Twilio |
//! | `voice_otp_credential_circuits_total` | counter | circuits opened here for a tenant whose credentials Twilio refused |
//! | `voice_otp_placements_in_flight` | gauge | places taken by calls being placed, of `VOICE_OTP_CONCURRENCY` |
//! | `voice_otp_deliveries_held` | gauge | deliveries in this worker's hands |
//! | `voice_otp_finals_missing` | gauge | deliveries of all workers without an ending long after their codes' ends: must be 0 |
//! | `voice_otp_finals_double_total` | counter | deliveries of which a second final status was published: must be 0 |

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use voice_otp::engine::Engine;
use voice_otp::ports::Ports;

/// The content type of `OpenMetrics` text.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Counts<P: Ports>(Arc<Engine<P>>);

/// All metrics as text.
pub(crate) fn text<P: Ports>(engine: &Arc<Engine<P>>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("voice_otp");
    registry.register_collector(Box::new(Counts(Arc::clone(engine))));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

impl<P: Ports> Collector for Counts<P> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.counts();
        let counters: [(&str, &str, &AtomicU64); 9] = [
            (
                "deliveries_admitted",
                "Deliveries that became durable here",
                &counts.admitted,
            ),
            (
                "calls_placed",
                "Calls that Twilio took from here",
                &counts.placed,
            ),
            (
                "deliveries_ended",
                "Final statuses said by this worker",
                &counts.ended,
            ),
            (
                "redials",
                "Calls to be placed again, since one reached nobody",
                &counts.redials,
            ),
            ("prices", "Prices of calls that were told", &counts.prices),
            (
                "stray_calls",
                "Calls that were no delivery's any more, hung up",
                &counts.strays,
            ),
            (
                "account_circuits",
                "Circuits opened for an account whose calls met trouble at Twilio",
                &counts.account_circuits,
            ),
            (
                "credential_circuits",
                "Circuits opened for a tenant whose credentials Twilio refused",
                &counts.credential_circuits,
            ),
            (
                "finals_double",
                "Deliveries of which a second final status was published: must be 0",
                &counts.finals_double,
            ),
        ];
        for (name, help, count) in counters {
            let counter = ConstCounter::new(count.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let missing =
            i64::try_from(counts.finals_missing.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let held = i64::try_from(self.0.holds()).unwrap_or(i64::MAX);
        let in_flight = i64::try_from(self.0.places()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "placements_in_flight",
                "Places taken by calls being placed",
                in_flight,
            ),
            ("deliveries_held", "Deliveries in this worker's hands", held),
            (
                "finals_missing",
                "Deliveries without an ending long after their codes' ends: must be 0",
                missing,
            ),
        ] {
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}

impl<P: Ports> fmt::Debug for Counts<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counts")
    }
}
