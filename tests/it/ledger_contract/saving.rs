//! Saving of changes: on condition that nobody changed the delivery meanwhile, and with their events.

use std::time::Duration;

use uuid::Uuid;
use voice_otp::account::CallSid;
use voice_otp::delivery::{AttemptId, Change, Delivery, Said, Slot, State, WorkerEpoch};
use voice_otp::policy::Voicemail;
use voice_otp::ports::{Begun, Ledger as _, LedgerError, Lower, Saved};
use voice_otp::progress::CallStatus;
use voice_otp_schemas::reason::{Reason, ReasonCode};
use voice_otp_schemas::status::Status;

use super::stage::{Stage, begin, begun, call, enlist, find, news, save, tenant, waiting};
use crate::memory::sample::{Ask, key};

contract!(
    of_two_changes_from_one_revision_only_the_first_is_saved,
    final_is_final,
    what_is_saved_can_be_read_back,
    what_no_change_may_change_stays,
    a_group_is_answered_one_by_one,
    a_call_is_one_deliverys_or_nothing_of_the_group_is_done,
    who_saves_becomes_the_owner,
    a_saver_is_told_where_the_earlier_events_are,
);

const SAVED: Saved = Saved::Saved {
    lower: Lower::Published,
};

async fn of_two_changes_from_one_revision_only_the_first_is_saved<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let (placed, back) = (
        news(&row, &call(1, CallStatus::Queued), stage.now()),
        row.unbegin(stage.now()),
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
    let mut stranger = Change::of(&row);
    stranger.delivery.key = key("acme", "never-admitted");
    assert_eq!(save(stage, worker, &stranger).await, Saved::Conflict);
}

async fn final_is_final<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    let withdrawn = row
        .withdraw(ReasonCode::CancelledByRequest, stage.now())
        .expect("it waits");
    assert!(matches!(
        save(stage, worker, &withdrawn).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert_eq!(
        (row.state, row.ended),
        (State::Final, Some(Status::Cancelled))
    );
    assert!(
        row.order.is_none(),
        "the secret part goes with the final status"
    );
    assert_eq!(row.withdrawn, Some(ReasonCode::CancelledByRequest));
    let mut revived = Change::of(&row);
    revived.delivery.state = State::Waiting;
    revived.delivery.ended = None;
    assert_eq!(save(stage, worker, &revived).await, Saved::Conflict);
}

async fn what_is_saved_can_be_read_back<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, now) = (enlist(stage).await, stage.now());
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let later = |ms: u64| now + Duration::from_millis(ms);
    let mut change = Change::of(&row);
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
    next.withdrawn = Some(ReasonCode::ProviderQueue);
    next.voicemail = Voicemail::HangUp;
    next.said = Some(Said::Nothing);
    next.answered_by = Some("machine_start".to_owned());
    next.redials = 2;
    next.tries = 4;
    // It goes with the end of the placement.
    next.line = None;
    next.sequence = 5;
    assert_eq!(save(stage, worker, &change).await, SAVED);
    change.delivery.revision += 1;
    assert_eq!(
        format!("{:#?}", find(stage, &row.key).await),
        format!("{:#?}", change.delivery)
    );
}

async fn what_no_change_may_change_stays<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let mut change = Change::of(&row);
    change.delivery.place_by += Duration::from_secs(1);
    change.delivery.expires_at += Duration::from_secs(1);
    change.delivery.admitted_at += Duration::from_secs(1);
    change.delivery.pace_key = None;
    change.delivery.account_sid = None;
    change.delivery.to_masked = None;
    change.delivery.order = None;
    assert_eq!(save(stage, worker, &change).await, SAVED);
    let mut kept = find(stage, &row.key).await;
    assert!(kept.order.is_some());
    kept.revision = row.revision;
    assert_eq!(format!("{kept:#?}"), format!("{row:#?}"));
}

async fn a_group_is_answered_one_by_one<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let worker = enlist(stage).await;
    let mut group = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        let row = waiting(stage, worker, &Ask::new("acme", id).calling(n)).await;
        group.push(row.expire(stage.now()));
    }
    group[1].delivery.revision += 1;
    let answers = stage.ledger().save(worker, &group).await.unwrap();
    let mine = Saved::Saved { lower: Lower::Mine };
    assert_eq!(answers, [mine, Saved::Conflict, mine]);
    assert_eq!(find(stage, &key("acme", "b")).await.state, State::Waiting);
    assert_eq!(find(stage, &key("acme", "c")).await.state, State::Final);
}

async fn a_call_is_one_deliverys_or_nothing_of_the_group_is_done<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 100.0).await;
    let (worker, now) = (enlist(stage).await, stage.now());
    let mut rows = Vec::new();
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        rows.push(begun_on(stage, worker, id, n).await);
    }
    let theirs = call(1, CallStatus::Queued);
    assert!(matches!(
        save(stage, worker, &news(&rows[0], &theirs, now)).await,
        Saved::Saved { .. }
    ));
    let group = [
        news(&rows[2], &call(3, CallStatus::Queued), now),
        news(&rows[1], &theirs, now),
    ];
    let refused = stage.ledger().save(worker, &group).await;
    assert!(matches!(refused, Err(LedgerError::Data(_))), "{refused:?}");
    for row in &rows[1..] {
        let untouched = find(stage, &row.key).await;
        assert_eq!(
            (untouched.revision, untouched.state),
            (row.revision, State::Placing)
        );
    }
}

/// A delivery whose placement to a number is begun.
async fn begun_on<S: Stage>(stage: &S, worker: WorkerEpoch, id: &str, to: u32) -> Delivery {
    let row = waiting(stage, worker, &Ask::new("acme", id).calling(to)).await;
    let answer = begin(stage, worker, &row).await;
    assert!(matches!(answer, Begun::Go { .. }), "{answer:?}");
    find(stage, &row.key).await
}

async fn who_saves_becomes_the_owner<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second, third) = (
        enlist(stage).await,
        enlist(stage).await,
        enlist(stage).await,
    );
    let row = waiting(stage, first, &Ask::new("acme", "a")).await;
    assert!(matches!(
        save(stage, second, &Change::of(&row)).await,
        Saved::Saved { .. }
    ));
    stage.ledger().retire(first).await.unwrap();
    assert!(
        stage.ledger().claim(third, 10).await.unwrap().is_empty(),
        "its owner lives"
    );
    stage.ledger().retire(second).await.unwrap();
    assert_eq!(stage.ledger().claim(third, 10).await.unwrap().len(), 1);
}

async fn a_saver_is_told_where_the_earlier_events_are<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (first, second) = (enlist(stage).await, enlist(stage).await);
    let ask = Ask::new("acme", "a");
    waiting(stage, first, &ask).await;
    let deferral = async || {
        let mut change = Change::of(&find(stage, &ask.key()).await);
        change.delivery.wake_at = change.delivery.announced_at.unwrap() + Duration::from_secs(2);
        change.defer(stage.now(), Reason::new(ReasonCode::Pace, "it waits"));
        assert_eq!(change.events.len(), 1);
        change
    };
    let lower = |lower| Saved::Saved { lower };
    // 1 is the first worker's, and not published.
    assert_eq!(
        save(stage, first, &deferral().await).await,
        lower(Lower::Mine)
    );
    assert_eq!(
        save(stage, second, &deferral().await).await,
        lower(Lower::Others)
    );
    stage
        .ledger()
        .published(&[(ask.key(), 1), (ask.key(), 2)])
        .await
        .unwrap();
    // 3 is the second worker's.
    assert_eq!(
        save(stage, second, &deferral().await).await,
        lower(Lower::Mine)
    );
    assert_eq!(
        save(stage, first, &deferral().await).await,
        lower(Lower::Others)
    );
    // A change that says nothing needs nobody's events out of the way.
    assert_eq!(
        save(stage, first, &Change::of(&find(stage, &ask.key()).await)).await,
        lower(Lower::Published)
    );
    stage
        .ledger()
        .published(&[(ask.key(), 3), (ask.key(), 4), (ask.key(), 5)])
        .await
        .unwrap();
    assert_eq!(
        save(stage, first, &deferral().await).await,
        lower(Lower::Published)
    );
}
