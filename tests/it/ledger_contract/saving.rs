//! Saving changes, with their events, if the delivery was not changed concurrently.

use std::time::Duration;

use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::call::CallStatus;
use voice_otp::delivery::{AttemptId, CancelCause, Change, Delivery, Played, Slot, State};
use voice_otp::ports::WorkerEpoch;
use voice_otp::ports::{EarlierEvents, Ledger as _, LedgerError, Saved, StartOutcome};
use voice_otp::settings::policy::Voicemail;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::stage::{Stage, begin, begun, call, find, register, save, tenant, update, waiting};
use crate::memory::sample::{Request, key};

contract!(
    of_two_changes_from_one_revision_only_the_first_is_saved,
    final_is_final,
    a_saved_change_can_be_read_back,
    fields_that_no_change_may_touch_stay,
    every_change_of_a_batch_has_its_own_answer,
    a_call_belongs_to_one_delivery_or_nothing_of_the_batch_is_saved,
    the_worker_that_saves_becomes_the_owner,
    a_save_reports_who_publishes_the_earlier_events,
);

const SAVED: Saved = Saved::Saved {
    earlier_events: EarlierEvents::Published,
};

async fn of_two_changes_from_one_revision_only_the_first_is_saved<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let (placed, back) = (
        update(&row, &call(1, CallStatus::Queued), stage.now()),
        row.revert_start(stage.now()),
    );
    assert!(matches!(
        save(stage, worker, &placed).await,
        Saved::Saved { .. }
    ));
    assert_eq!(save(stage, worker, &back).await, Saved::Conflict);
    let row = find(stage, &row.key).await;
    assert_eq!(
        (row.revision, row.state, row.sequence),
        (2, State::Calling, 2)
    );
    let mut other = Change::unchanged(&row);
    other.delivery.key = key("acme", "never-admitted");
    assert_eq!(save(stage, worker, &other).await, Saved::Conflict);
}

async fn final_is_final<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = waiting(stage, worker, &Request::new("acme", "a")).await;
    let cancel_reason = row
        .cancel(CancelCause::Request, stage.now())
        .expect("it waits");
    assert!(matches!(
        save(stage, worker, &cancel_reason).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert_eq!(
        (row.state, row.final_status),
        (State::Final, Some(Status::Cancelled))
    );
    assert!(
        row.secrets.is_none(),
        "the secret part goes with the final status"
    );
    assert_eq!(row.cancel_reason, Some(CancelCause::Request));
    let mut revived = Change::unchanged(&row);
    revived.delivery.state = State::Waiting;
    revived.delivery.final_status = None;
    assert_eq!(save(stage, worker, &revived).await, Saved::Conflict);
}

async fn a_saved_change_can_be_read_back<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, now) = (register(stage).await, stage.now());
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let later = |ms: u64| now + Duration::from_millis(ms);
    let mut change = Change::unchanged(&row);
    let next = &mut change.delivery;
    next.state = State::Calling;
    next.wake_at = later(3_001);
    next.slot = Some(Slot {
        at: later(7),
        epoch: 3,
    });
    next.announced_at = Some(later(8));
    next.attempt = 2;
    next.attempt_id = Some(AttemptId(Uuid::new_v4()));
    next.intent_at = Some(later(9));
    next.settle_after = Some(later(10));
    next.call_sid = Some(CallSid::parse(&format!("CA{:032x}", 77)).unwrap());
    next.heard_after = Duration::from_millis(8_250);
    next.placed_at = Some(later(11));
    next.ringing_at = Some(later(12));
    next.answered_at = Some(later(13));
    next.cancel_reason = Some(CancelCause::ProviderQueue);
    next.voicemail = Voicemail::HangUp;
    next.played = Some(Played::Nothing);
    next.answered_by = Some("machine_start".to_owned());
    next.redials = 2;
    next.tries = 4;
    // The line is released when the attempt ends.
    next.line = None;
    next.sequence = 5;
    assert_eq!(save(stage, worker, &change).await, SAVED);
    change.delivery.revision += 1;
    assert_eq!(
        format!("{:#?}", find(stage, &row.key).await),
        format!("{:#?}", change.delivery)
    );
}

async fn fields_that_no_change_may_touch_stay<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let mut change = Change::unchanged(&row);
    change.delivery.place_by += Duration::from_secs(1);
    change.delivery.expires_at += Duration::from_secs(1);
    change.delivery.admitted_at += Duration::from_secs(1);
    change.delivery.pace_key = None;
    change.delivery.account_sid = None;
    change.delivery.to_masked = None;
    change.delivery.secrets = None;
    assert_eq!(save(stage, worker, &change).await, SAVED);
    let mut kept = find(stage, &row.key).await;
    assert!(kept.secrets.is_some());
    kept.revision = row.revision;
    assert_eq!(format!("{kept:#?}"), format!("{row:#?}"));
}

async fn every_change_of_a_batch_has_its_own_answer<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = register(stage).await;
    let mut group = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        let row = waiting(stage, worker, &Request::new("acme", id).to(n)).await;
        group.push(row.expire(stage.now()));
    }
    group[1].delivery.revision += 1;
    let answers = stage.ledger().save(worker, &group).await.unwrap();
    let mine = Saved::Saved {
        earlier_events: EarlierEvents::OwnedHere,
    };
    assert_eq!(answers, [mine, Saved::Conflict, mine]);
    assert_eq!(find(stage, &key("acme", "b")).await.state, State::Waiting);
    assert_eq!(find(stage, &key("acme", "c")).await.state, State::Final);
}

async fn a_call_belongs_to_one_delivery_or_nothing_of_the_batch_is_saved<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let (worker, now) = (register(stage).await, stage.now());
    let mut rows = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        rows.push(begun_on(stage, worker, id, n).await);
    }
    let theirs = call(1, CallStatus::Queued);
    assert!(matches!(
        save(stage, worker, &update(&rows[0], &theirs, now)).await,
        Saved::Saved { .. }
    ));
    let group = [
        update(&rows[2], &call(3, CallStatus::Queued), now),
        update(&rows[1], &theirs, now),
    ];
    let refused = stage.ledger().save(worker, &group).await;
    assert!(
        matches!(refused, Err(LedgerError::InvalidRow(_))),
        "{refused:?}"
    );
    for row in &rows[1..] {
        let untouched = find(stage, &row.key).await;
        assert_eq!(
            (untouched.revision, untouched.state),
            (row.revision, State::Placing)
        );
    }
}

/// A delivery whose attempt to a number is started.
async fn begun_on<S: Stage>(stage: &S, worker: WorkerEpoch, id: &str, to: u32) -> Delivery {
    let row = waiting(stage, worker, &Request::new("acme", id).to(to)).await;
    let answer = begin(stage, worker, &row).await;
    assert!(matches!(answer, StartOutcome::Started { .. }), "{answer:?}");
    find(stage, &row.key).await
}

async fn the_worker_that_saves_becomes_the_owner<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        register(stage).await,
        register(stage).await,
        register(stage).await,
    );
    let row = waiting(stage, first, &Request::new("acme", "a")).await;
    assert!(matches!(
        save(stage, second, &Change::unchanged(&row)).await,
        Saved::Saved { .. }
    ));
    stage.ledger().release_worker(first).await.unwrap();
    assert!(
        stage
            .ledger()
            .claim_due(third, 10)
            .await
            .unwrap()
            .is_empty(),
        "its owner's lease is valid"
    );
    stage.ledger().release_worker(second).await.unwrap();
    assert_eq!(stage.ledger().claim_due(third, 10).await.unwrap().len(), 1);
}

async fn a_save_reports_who_publishes_the_earlier_events<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (register(stage).await, register(stage).await);
    let ask = Request::new("acme", "a");
    waiting(stage, first, &ask).await;
    let deferral = async || {
        let mut change = Change::unchanged(&find(stage, &ask.key()).await);
        change.delivery.wake_at = change.delivery.announced_at.unwrap() + Duration::from_secs(2);
        change.defer(stage.now(), Reason::new(ReasonCode::Pace, "it waits"));
        assert_eq!(change.events.len(), 1);
        change
    };
    let saved = |earlier_events| Saved::Saved { earlier_events };
    // Event 1 belongs to the first worker and is not published.
    assert_eq!(
        save(stage, first, &deferral().await).await,
        saved(EarlierEvents::OwnedHere)
    );
    assert_eq!(
        save(stage, second, &deferral().await).await,
        saved(EarlierEvents::OwnedElsewhere)
    );
    stage
        .ledger()
        .delete_published(&[(ask.key(), 1), (ask.key(), 2)])
        .await
        .unwrap();
    // Event 3 belongs to the second worker.
    assert_eq!(
        save(stage, second, &deferral().await).await,
        saved(EarlierEvents::OwnedHere)
    );
    assert_eq!(
        save(stage, first, &deferral().await).await,
        saved(EarlierEvents::OwnedElsewhere)
    );
    // A change without events does not wait for earlier ones.
    assert_eq!(
        save(
            stage,
            first,
            &Change::unchanged(&find(stage, &ask.key()).await)
        )
        .await,
        saved(EarlierEvents::Published)
    );
    stage
        .ledger()
        .delete_published(&[(ask.key(), 3), (ask.key(), 4), (ask.key(), 5)])
        .await
        .unwrap();
    assert_eq!(
        save(stage, first, &deferral().await).await,
        saved(EarlierEvents::Published)
    );
}
