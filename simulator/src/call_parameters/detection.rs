//! The parameters of answering machine detection
//! (<https://www.twilio.com/docs/voice/answering-machine-detection>).

use crate::api_error::ApiError;
use crate::params::Params;
use crate::webhook::Webhook;

/// Answering machine detection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detection {
    /// Whether it waits for the end of a machine's greeting.
    pub(crate) message_end: bool,
    /// Whether the speech begins without waiting for the result (`AsyncAmd`).
    pub(crate) in_background: bool,
    /// Where the result of a detection in the background is posted.
    pub(crate) callback: Option<Webhook>,
}

impl Detection {
    /// Checks all parameters of the detection, and returns them if it is requested.
    pub(super) fn parse(params: &Params) -> Result<Option<Self>, ApiError> {
        for (name, bounds) in [
            ("MachineDetectionTimeout", 3..=59),
            ("MachineDetectionSpeechThreshold", 1_000..=6_000),
            ("MachineDetectionSpeechEndThreshold", 500..=5_000),
            ("MachineDetectionSilenceTimeout", 2_000..=10_000),
        ] {
            params.number(name, bounds, ApiError::strict)?;
        }
        let in_background =
            params.one_of("AsyncAmd", &["true", "false"], ApiError::strict)? == Some("true");
        if params.method("AsyncAmdStatusCallbackMethod")? == Some("GET") {
            return Err(ApiError::strict("the simulator posts callbacks only"));
        }
        let callback = Webhook::in_parameter(params, "AsyncAmdStatusCallback")?;
        let modes = ["Enable", "DetectMessageEnd"];
        let mode = params.one_of("MachineDetection", &modes, |text| {
            ApiError::bad_request(21234, text)
        })?;
        Ok(mode.map(|mode| Self {
            message_end: mode == "DetectMessageEnd",
            in_background,
            callback,
        }))
    }
}
