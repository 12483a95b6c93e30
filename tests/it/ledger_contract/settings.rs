//! Settings that change between a plan, its admission and its placement.

use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::{Begun, Ledger as _, Saved, Verdict};
use voice_otp::progress::CallStatus;
use voice_otp::settings::Draft;
use voice_otp_schemas::PhoneNumber;
use voice_otp_schemas::status::Status;

use super::stage::{
    Stage, admit, admit_group, begin, begun, call, enlist, find, news, over, plan, save, tenant,
    waiting,
};
use crate::memory::sample::{Ask, account, draft, number};

contract!(
    a_refusal_for_want_of_settings_is_stale_once_there_are_some,
    a_refusal_by_older_settings_is_stale,
    what_can_not_be_followed_whatever_the_settings_is_never_stale,
    a_placement_begins_on_the_account_of_now,
    a_placement_under_way_knows_the_line_it_went_from,
);

async fn a_refusal_for_want_of_settings_is_stale_once_there_are_some<S: Stage>(stage: &S) {
    let worker = enlist(stage).await;
    let ask = Ask::new("acme", "a");
    let refusal = plan(stage, &ask).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert!(
        matches!(verdicts.as_slice(), [Verdict::StaleSettings]),
        "{verdicts:?}"
    );
    assert!(
        stage.ledger().find(&ask.key()).await.unwrap().is_none(),
        "nothing is said, nothing is done"
    );
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Placing(_)
    ));
}

async fn a_refusal_by_older_settings_is_stale<S: Stage>(stage: &S) {
    stage
        .save_tenant(
            "acme",
            &Draft {
                enabled: false,
                ..draft(1, 1.0)
            },
        )
        .await;
    let worker = enlist(stage).await;
    let ask = Ask::new("acme", "a");
    let refusal = plan(stage, &ask).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert!(
        matches!(verdicts.as_slice(), [Verdict::StaleSettings]),
        "{verdicts:?}"
    );
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Placing(_)
    ));
}

async fn what_can_not_be_followed_whatever_the_settings_is_never_stale<S: Stage>(stage: &S) {
    let worker = enlist(stage).await;
    let refusal = plan(stage, &Ask::new("acme", "a").reading("12")).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert_eq!(over(&verdicts[0])[0].status, Some(Status::Rejected));
}

async fn a_placement_begins_on_the_account_of_now<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = waiting(stage, worker, &Ask::new("acme", "a")).await;
    let moved = tenant(stage, "acme", 2, 1.0).await;
    assert!(
        matches!(begin(stage, worker, &row).await, Begun::Go { .. }),
        "its slot was another account's, and this one is idle"
    );
    let row = find(stage, &row.key).await;
    assert_eq!(
        (row.account_sid.as_ref(), row.pace_key.as_ref()),
        (Some(&account(2)), Some(&moved.pace_key))
    );
    assert!(stage.ledger().went_from(&row, &account(2), &moved.from));
    assert!(!stage.ledger().went_from(&row, &account(1), &moved.from));
}

async fn a_placement_under_way_knows_the_line_it_went_from<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let row = begun(stage, worker, &Ask::new("acme", "a")).await;
    let went_from =
        |row: &Delivery, from: &PhoneNumber| stage.ledger().went_from(row, &account(1), from);
    assert!(went_from(&row, &settings.from));
    assert!(
        !went_from(&row, &PhoneNumber::parse(&number(99)).unwrap()),
        "another number's calls say nothing about it"
    );
    let unsettled = row.unsettle(stage.now(), stage.now(), stage.now());
    assert!(matches!(
        save(stage, worker, &unsettled).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert!(
        went_from(&row, &settings.from),
        "as long as its outcome is unknown"
    );
    let placed = news(&row, &call(1, CallStatus::Queued), stage.now());
    assert!(matches!(
        save(stage, worker, &placed).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert_eq!((row.state, row.line.is_none()), (State::Calling, true));
    assert!(
        !went_from(&row, &settings.from),
        "nothing is under way any more"
    );
}
