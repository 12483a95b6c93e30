//! Settings that change between a plan, its admission and its attempt.

use voice_otp::call::CallStatus;
use voice_otp::delivery::{Delivery, State};
use voice_otp::ports::{Ledger as _, Saved, StartOutcome, Verdict};
use voice_otp::settings::Draft;
use voice_otp_schemas::PhoneNumber;
use voice_otp_schemas::status::Status;

use super::stage::{
    Stage, admit, admit_group, begin, begun, call, find, finished, plan, register, save, tenant,
    update, waiting,
};
use crate::memory::sample::{Request, account, draft, number};

contract!(
    a_refusal_for_missing_settings_is_stale_once_there_are_some,
    a_refusal_by_older_settings_is_stale,
    an_invalid_request_is_never_stale,
    an_attempt_starts_on_the_present_account,
    an_attempt_in_progress_knows_the_line_it_was_placed_from,
);

async fn a_refusal_for_missing_settings_is_stale_once_there_are_some<S: Stage>(stage: &S) {
    let worker = register(stage).await;
    let ask = Request::new("acme", "a");
    let refusal = plan(stage, &ask).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert!(
        matches!(verdicts.as_slice(), [Verdict::StaleSettings]),
        "{verdicts:?}"
    );
    assert!(
        stage.ledger().find(&ask.key()).await.unwrap().is_none(),
        "no event is written, no row inserted"
    );
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Admitted(_)
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
    let worker = register(stage).await;
    let ask = Request::new("acme", "a");
    let refusal = plan(stage, &ask).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert!(
        matches!(verdicts.as_slice(), [Verdict::StaleSettings]),
        "{verdicts:?}"
    );
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Admitted(_)
    ));
}

async fn an_invalid_request_is_never_stale<S: Stage>(stage: &S) {
    let worker = register(stage).await;
    let refusal = plan(stage, &Request::new("acme", "a").code("12")).await;
    tenant(stage, "acme", 1, 1.0).await;
    let verdicts = admit_group(stage, worker, &[refusal]).await;
    assert_eq!(finished(&verdicts[0])[0].status, Some(Status::Rejected));
}

async fn an_attempt_starts_on_the_present_account<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = waiting(stage, worker, &Request::new("acme", "a")).await;
    let moved = tenant(stage, "acme", 2, 1.0).await;
    assert!(
        matches!(
            begin(stage, worker, &row).await,
            StartOutcome::Started { .. }
        ),
        "its slot belonged to another account, and this one is idle"
    );
    let row = find(stage, &row.key).await;
    assert_eq!(
        (row.account_sid.as_ref(), row.pace_key.as_ref()),
        (Some(&account(2)), Some(&moved.pace_key))
    );
    assert!(
        stage
            .ledger()
            .was_placed_from(&row, &account(2), &moved.from)
    );
    assert!(
        !stage
            .ledger()
            .was_placed_from(&row, &account(1), &moved.from)
    );
}

async fn an_attempt_in_progress_knows_the_line_it_was_placed_from<S: Stage>(stage: &S) {
    let settings = tenant(stage, "acme", 1, 1.0).await;
    let worker = register(stage).await;
    let row = begun(stage, worker, &Request::new("acme", "a")).await;
    let went_from =
        |row: &Delivery, from: &PhoneNumber| stage.ledger().was_placed_from(row, &account(1), from);
    assert!(went_from(&row, &settings.from));
    assert!(
        !went_from(&row, &PhoneNumber::parse(&number(99)).unwrap()),
        "the call list of another number says nothing about it"
    );
    let unsettled = row.mark_unsettled(stage.now(), stage.now(), "no answer", stage.now());
    assert!(matches!(
        save(stage, worker, &unsettled).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert!(
        went_from(&row, &settings.from),
        "as long as its outcome is unknown"
    );
    let placed = update(&row, &call(1, CallStatus::Queued), stage.now());
    assert!(matches!(
        save(stage, worker, &placed).await,
        Saved::Saved { .. }
    ));
    let row = find(stage, &row.key).await;
    assert_eq!((row.state, row.line.is_none()), (State::Calling, true));
    assert!(
        !went_from(&row, &settings.from),
        "no attempt is in progress"
    );
}
