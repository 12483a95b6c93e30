//! What Twilio tells about a call, and to whom.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rand::RngExt as _;
use tokio::time::sleep;

use super::call::{API_VERSION, Call, Ending, Stage};
use super::clock::rfc2822;
use super::dice::Concern;
use super::order::{Callback, Event};
use super::post::{Notice, post};
use super::world::World;

/// Tells a progress event to whoever subscribed to it.
pub(crate) fn progress(world: &Arc<World>, id: usize, event: Event) {
    let now = world.clock.now();
    let notice = world.book().get_mut(id).and_then(|call| {
        if event != Event::Completed && matches!(call.stage, Stage::Ended(_)) {
            // Ended from outside between the progress and the telling of it: only the end is told.
            return None;
        }
        let callback = call
            .order
            .callback
            .as_ref()
            .filter(|callback| callback.events.contains(&event))?;
        let sequence = u32::try_from(call.told.len()).unwrap_or(u32::MAX);
        let notice = notice(call, callback, sequence, fields(call, event, sequence, now));
        call.told.push(sequence);
        Some(notice)
    });
    if let Some(notice) = notice {
        send(world, notice);
    }
}

/// Notes what the detection found, and tells it if it was made in the background.
pub(crate) fn detected(world: &Arc<World>, id: usize, took: Duration) {
    let notice = world.book().get_mut(id).and_then(|call| {
        let detection = call.order.detection.as_ref()?;
        let found = call.picked_up_by()?.answered_by(detection.message_end);
        call.answered_by = Some(found);
        let callback = detection
            .callback
            .as_ref()
            .filter(|_| detection.in_background)?;
        let fields = vec![
            ("CallSid", call.sid.clone()),
            ("AccountSid", call.account.sid.clone()),
            ("AnsweredBy", found.to_owned()),
            ("MachineDetectionDuration", took.as_millis().to_string()),
        ];
        Some(notice(call, callback, u32::MAX, fields))
    });
    if let Some(notice) = notice {
        send(world, notice);
    }
}

fn notice(call: &Call, callback: &Callback, which: u32, fields: Vec<(&str, String)>) -> Notice {
    Notice {
        url: callback.url.clone(),
        overrides: callback.overrides.clone(),
        account: call.account.sid.clone(),
        call: call.number,
        which,
        fields: fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

/// What every request about a call says.
pub(crate) fn common_fields(call: &Call) -> Vec<(&'static str, String)> {
    vec![
        ("CallSid", call.sid.clone()),
        ("AccountSid", call.account.sid.clone()),
        ("From", call.order.from.clone()),
        ("To", call.order.to.clone()),
        ("Caller", call.order.from.clone()),
        ("Called", call.order.to.clone()),
        ("CallStatus", call.stage.told_as().to_owned()),
        ("ApiVersion", API_VERSION.to_owned()),
        ("Direction", "outbound-api".to_owned()),
    ]
}

/// The form of a progress event.
fn fields(
    call: &Call,
    event: Event,
    sequence: u32,
    now: DateTime<Utc>,
) -> Vec<(&'static str, String)> {
    let mut fields = common_fields(call);
    fields.extend([
        ("Timestamp", rfc2822(now)),
        ("CallbackSource", "call-progress-events".to_owned()),
        ("SequenceNumber", sequence.to_string()),
    ]);
    if event == Event::Completed {
        fields.push(("CallDuration", call.duration_s().to_string()));
        if call.stage == Stage::Ended(Ending::Completed) {
            // Minutes, though the name says nothing of it.
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

/// Sends a notice on its way, unless it gets lost, and perhaps twice.
fn send(world: &Arc<World>, notice: Notice) {
    let faults = *world.faults();
    let mut rng = world.dice.of(
        Concern::Callback,
        (notice.call << 32) | u64::from(notice.which),
    );
    let lost = rng.random::<f64>() < faults.callback_loss_share;
    let twice = rng.random::<f64>() < faults.callback_duplicate_share;
    let delayed = rng.random::<f64>() < faults.callback_delay_share;
    let delay = if delayed {
        world.scaled(Duration::from_millis(rng.random_range(1..8_000)))
    } else {
        Duration::ZERO
    };
    if lost {
        world.tally.callbacks_lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if twice {
        world.tasks.spawn(post(Arc::clone(world), notice.clone()));
    }
    let world_then = Arc::clone(world);
    world.tasks.spawn(async move {
        if world_then
            .halt
            .clone()
            .run_until_cancelled(sleep(delay))
            .await
            .is_some()
        {
            post(world_then, notice).await;
        }
    });
}
