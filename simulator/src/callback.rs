//! Status callbacks and detection results: what Twilio posts about a call, and when.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt as _;
use tokio::time::sleep;

use crate::call::{API_VERSION, CallStage, FinalStatus, SimulatedCall};
use crate::call_parameters::ProgressEvent;
use crate::clock::rfc2822;
use crate::rng::RngPurpose;
use crate::state::SimulatorState;
use crate::webhook::Webhook;
use crate::webhook_client::{WebhookRequest, post};

/// The request number of a detection's callback. Progress callbacks count up from 0.
const DETECTION_REQUEST: u32 = u32::MAX;

/// Sends the callback for a progress event, if the call's creator subscribed to the event.
pub(crate) fn send_progress(state: &Arc<SimulatorState>, id: usize, event: ProgressEvent) {
    let now = state.clock.now();
    let request = state.calls().get_mut(id).and_then(|call| {
        if event != ProgressEvent::Completed && matches!(call.stage, CallStage::Ended(_)) {
            // An update ended the call between its progress and this callback: only the end is
            // reported.
            return None;
        }
        let callback = call
            .parameters
            .callback
            .as_ref()
            .filter(|callback| callback.events.contains(&event))?;
        let sequence = u32::try_from(call.sequence_numbers.len()).unwrap_or(u32::MAX);
        let fields = progress_fields(call, event, sequence, now);
        let request = webhook_request(call, &callback.webhook, sequence, fields);
        call.sequence_numbers.push(sequence);
        Some(request)
    });
    if let Some(request) = request {
        send(state, request);
    }
}

/// Stores what answering machine detection found, and sends it if the detection ran in the
/// background.
pub(crate) fn send_detection(state: &Arc<SimulatorState>, id: usize, took: Duration) {
    let request = state.calls().get_mut(id).and_then(|call| {
        let detection = call.parameters.detection.as_ref()?;
        let found = call.picked_up_by()?.answered_by(detection.message_end);
        call.answered_by = Some(found);
        let webhook = detection
            .callback
            .as_ref()
            .filter(|_| detection.in_background)?;
        let fields = vec![
            ("CallSid", call.sid.clone()),
            ("AccountSid", call.account.sid.clone()),
            ("AnsweredBy", found.to_owned()),
            ("MachineDetectionDuration", took.as_millis().to_string()),
        ];
        Some(webhook_request(call, webhook, DETECTION_REQUEST, fields))
    });
    if let Some(request) = request {
        send(state, request);
    }
}

/// A request to a webhook about this call.
pub(crate) fn webhook_request(
    call: &SimulatedCall,
    webhook: &Webhook,
    request_number: u32,
    fields: Vec<(&str, String)>,
) -> WebhookRequest {
    WebhookRequest {
        webhook: webhook.clone(),
        account_sid: call.account.sid.clone(),
        call_number: call.number,
        request_number,
        fields: fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// The fields of every request about a call
/// (<https://www.twilio.com/docs/voice/twiml#request-parameters>).
pub(crate) fn common_fields(call: &SimulatedCall) -> Vec<(&'static str, String)> {
    vec![
        ("CallSid", call.sid.clone()),
        ("AccountSid", call.account.sid.clone()),
        ("From", call.parameters.from.clone()),
        ("To", call.parameters.to.clone()),
        ("Caller", call.parameters.from.clone()),
        ("Called", call.parameters.to.clone()),
        ("CallStatus", call.stage.callback_status().to_owned()),
        ("ApiVersion", API_VERSION.to_owned()),
        ("Direction", "outbound-api".to_owned()),
    ]
}

/// The fields of a progress callback
/// (<https://www.twilio.com/docs/voice/api/call-resource#statuscallback>).
fn progress_fields(
    call: &SimulatedCall,
    event: ProgressEvent,
    sequence: u32,
    now: DateTime<Utc>,
) -> Vec<(&'static str, String)> {
    let mut fields = common_fields(call);
    fields.extend([
        ("Timestamp", rfc2822(now)),
        ("CallbackSource", "call-progress-events".to_owned()),
        ("SequenceNumber", sequence.to_string()),
    ]);
    if event == ProgressEvent::Completed {
        fields.push(("CallDuration", call.duration_s().to_string()));
        if call.stage == CallStage::Ended(FinalStatus::Completed) {
            // `Duration` is in minutes, although its name doesn't say so.
            fields.push(("Duration", call.minutes().to_string()));
        }
        if let Some(code) = call.sip_response {
            fields.push(("SipResponseCode", code.to_string()));
        }
        if let Some(found) = call.answered_by {
            fields.push(("AnsweredBy", found.to_owned()));
        }
    }
    fields
}

/// Posts a callback in the background. The [`Faults`](crate::Faults) may lose, delay or duplicate
/// it.
fn send(state: &Arc<SimulatorState>, request: WebhookRequest) {
    let faults = *state.faults();
    let mut rng = state.rng.of(
        RngPurpose::Callback,
        (request.call_number << 32) | u64::from(request.request_number),
    );
    let lost = rng.random::<f64>() < faults.callback_loss_share;
    let duplicated = rng.random::<f64>() < faults.callback_duplicate_share;
    let delayed = rng.random::<f64>() < faults.callback_delay_share;
    let delay = if delayed {
        state.scaled(Duration::from_millis(rng.random_range(1..8_000)))
    } else {
        Duration::ZERO
    };
    if lost {
        state
            .counters
            .callbacks_lost
            .fetch_add(1, Ordering::Relaxed);
        return;
    }
    if duplicated {
        state.tasks.spawn(post(Arc::clone(state), request.clone()));
    }
    let state = Arc::clone(state);
    state.tasks.clone().spawn(async move {
        let halt = state.halt.clone();
        if halt.run_until_cancelled(sleep(delay)).await.is_some() {
            post(state, request).await;
        }
    });
}
