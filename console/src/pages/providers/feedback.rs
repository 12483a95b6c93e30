//! What a provider page reports.

use voice_otp_twilio::check::Finding;

use crate::problem::Problem;
use crate::services::test_calls::TestCall;

/// What the page reports about the form that was submitted last.
#[derive(Default)]
pub(in crate::pages) struct Feedback {
    pub(in crate::pages) saved: bool,
    /// The problem of any form but the test call's.
    pub(in crate::pages) problem: Option<Problem>,
    /// The version that the settings form was filled from: it must stay the expected one, or a
    /// concurrent change would be overwritten unseen.
    pub(in crate::pages) version: Option<String>,
    pub(in crate::pages) findings: Option<Vec<Finding>>,
    pub(in crate::pages) test_call: Option<TestCall>,
    pub(in crate::pages) test_call_problem: Option<Problem>,
    /// The number that was entered for a test call.
    pub(in crate::pages) test_call_to: String,
}

impl Feedback {
    pub(super) fn any_problem(&self) -> Option<&Problem> {
        self.problem.as_ref().or(self.test_call_problem.as_ref())
    }
}
