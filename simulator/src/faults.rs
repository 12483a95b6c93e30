//! Random faults, which apply to every number.

use serde::{Deserialize, Serialize};

/// How often each fault occurs; all 0 by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// The share of accepted create requests that get no answer, from 0 to 1.
    pub unanswered_share: f64,
    /// The share of callbacks that are lost, from 0 to 1.
    pub callback_loss_share: f64,
    /// The share of callbacks that are sent twice, from 0 to 1.
    pub callback_duplicate_share: f64,
    /// The share of callbacks that are delayed by up to eight seconds at speed 1, so that later
    /// ones overtake them, from 0 to 1.
    pub callback_delay_share: f64,
    /// How long every create request waits before it is processed, in milliseconds.
    pub latency_ms: u64,
}

/// A change of some faults; the omitted ones stay.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FaultsChange {
    unanswered_share: Option<f64>,
    callback_loss_share: Option<f64>,
    callback_duplicate_share: Option<f64>,
    callback_delay_share: Option<f64>,
    latency_ms: Option<u64>,
}

impl Faults {
    /// These faults with the change applied.
    ///
    /// # Errors
    /// A share is out of its range.
    pub(crate) fn changed(self, change: FaultsChange) -> Result<Self, &'static str> {
        let changed = Self {
            unanswered_share: change.unanswered_share.unwrap_or(self.unanswered_share),
            callback_loss_share: change
                .callback_loss_share
                .unwrap_or(self.callback_loss_share),
            callback_duplicate_share: change
                .callback_duplicate_share
                .unwrap_or(self.callback_duplicate_share),
            callback_delay_share: change
                .callback_delay_share
                .unwrap_or(self.callback_delay_share),
            latency_ms: change.latency_ms.unwrap_or(self.latency_ms),
        };
        let shares = [
            changed.unanswered_share,
            changed.callback_loss_share,
            changed.callback_duplicate_share,
            changed.callback_delay_share,
        ];
        if shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            Ok(changed)
        } else {
            Err("a share is from 0 to 1")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leaves_the_other_faults_as_they_are() {
        let change = |text| serde_json::from_str::<FaultsChange>(text).unwrap();
        let faults = Faults::default()
            .changed(change(r#"{"unanswered_share": 0.05}"#))
            .unwrap();
        let faults = faults.changed(change(r#"{"latency_ms": 20}"#)).unwrap();
        assert_eq!(
            faults,
            Faults {
                unanswered_share: 0.05,
                latency_ms: 20,
                ..Faults::default()
            }
        );
        assert!(
            faults
                .changed(change(r#"{"callback_loss_share": 1.5}"#))
                .is_err()
        );
        assert!(serde_json::from_str::<FaultsChange>(r#"{"latency": 20}"#).is_err());
    }
}
