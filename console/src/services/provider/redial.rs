//! Redial rules, as the API and the pages have them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use voice_otp::settings::policy::{self, Redial, RedialOutcome};

/// How often and when a call is placed again.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedialRule {
    /// Calls in addition to the first: 0 to 5.
    #[schema(maximum = 5)]
    pub(crate) times: u32,
    /// Pause after the end of the last call, in seconds: 5 to 1,800.
    #[schema(minimum = 5, maximum = 1_800)]
    pub(crate) after_s: u64,
}

/// The rules by outcome.
pub(super) fn rules_of(redial: &Redial) -> BTreeMap<String, RedialRule> {
    let rule = |rule: policy::RedialRule| RedialRule {
        times: rule.times,
        after_s: rule.after_s,
    };
    redial
        .iter()
        .map(|(outcome, of)| (outcome.as_str().to_owned(), rule(of)))
        .collect()
}

/// The policy that the rules make; `Err` if an outcome is unknown.
pub(super) fn policy_of(rules: &BTreeMap<String, RedialRule>) -> Result<Redial, String> {
    let mut redial = Redial::default();
    for (word, rule) in rules {
        let Some(outcome) = RedialOutcome::parse(word) else {
            return Err("outcomes are busy, no_answer, failed and voicemail".to_owned());
        };
        let rule = policy::RedialRule {
            times: rule.times,
            after_s: rule.after_s,
        };
        redial.set(outcome, rule);
    }
    Ok(redial)
}
