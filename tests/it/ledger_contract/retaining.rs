//! What is over is put away by the day, and known for as long as it is kept.

use std::time::Duration;

use voice_otp::delivery::State;
use voice_otp::ports::{Ledger as _, Verdict};
use voice_otp_schemas::reason::ReasonCode;

use super::stage::{Stage, admit, begun, enlist, find, save, tenant};
use crate::memory::sample::{Ask, limits};

contract! {
    a_repeat_over_midnight_is_a_repeat_for_another_worker,
    what_is_put_away_is_still_known_and_told_from_another_content,
    what_is_dropped_is_new_again,
    what_is_not_over_or_over_only_lately_stays_at_hand,
    a_delivery_taken_back_before_it_comes_is_not_placed,
    what_has_come_cannot_be_forbidden,
    what_is_missing_its_end_is_counted,
}

/// Admits a request that is over at once, since its tenant has no settings; and says so.
async fn over<S: Stage>(stage: &S, id: &str) {
    let (worker, ask) = (enlist(stage).await, Ask::new("nobody", id));
    assert!(matches!(
        admit(stage, worker, &ask).await,
        Verdict::Ended(_)
    ));
    told(stage, &ask).await;
}

/// All that there was to say of a delivery is published.
async fn told<S: Stage>(stage: &S, ask: &Ask) {
    let events: Vec<_> = (1..5).map(|sequence| (ask.key(), sequence)).collect();
    stage
        .ledger()
        .published(&events)
        .await
        .expect("it can be noted");
}

async fn again<S: Stage>(stage: &S, ask: &Ask) -> Verdict {
    let worker = enlist(stage).await;
    let admission = super::stage::plan(stage, ask).await;
    stage
        .second()
        .admit(worker, &[admission])
        .await
        .expect("it is admitted")
        .remove(0)
}

async fn tidy<S: Stage>(stage: &S) -> u64 {
    let mut sum = 0;
    loop {
        let moved = stage.ledger().tidy().await.expect("it can be tidied");
        sum += moved;
        if moved == 0 {
            return sum;
        }
    }
}

async fn a_repeat_over_midnight_is_a_repeat_for_another_worker<S: Stage>(stage: &S) {
    let to_midnight = Duration::from_mins(24 * 60 - 160) - Duration::from_millis(100);
    stage.advance(to_midnight).await;
    assert_eq!(
        stage.now().format("%H:%M:%S%.3f").to_string(),
        "23:59:59.900"
    );
    over(stage, "a").await;
    stage.advance(Duration::from_millis(200)).await;
    assert_eq!(
        stage.now().format("%H:%M:%S%.3f").to_string(),
        "00:00:00.100"
    );
    assert!(matches!(
        again(stage, &Ask::new("nobody", "a")).await,
        Verdict::Repeat
    ));
    tidy(stage).await;
    assert!(matches!(
        again(stage, &Ask::new("nobody", "a")).await,
        Verdict::Repeat
    ));
    // Put away to the day in which it ended, and known over the next midnight too.
    stage.advance(Duration::from_hours(25)).await;
    assert_eq!(tidy(stage).await, 1);
    assert!(matches!(
        again(stage, &Ask::new("nobody", "a")).await,
        Verdict::Repeat
    ));
}

async fn what_is_put_away_is_still_known_and_told_from_another_content<S: Stage>(stage: &S) {
    for n in 0..30 {
        over(stage, &format!("d{n}")).await;
        stage.advance(Duration::from_hours(1)).await;
    }
    assert_eq!(
        tidy(stage).await,
        28,
        "two are over for less than two hours, or just so"
    );
    for n in 0..30 {
        let ask = Ask::new("nobody", &format!("d{n}"));
        assert!(matches!(again(stage, &ask).await, Verdict::Repeat), "d{n}");
        assert!(
            matches!(
                again(stage, &ask.reading("other1")).await,
                Verdict::Conflict
            ),
            "d{n}"
        );
    }
    assert!(
        stage
            .ledger()
            .find(&Ask::new("nobody", "d0").key())
            .await
            .unwrap()
            .is_none(),
        "it is not at hand any more"
    );
}

async fn what_is_dropped_is_new_again<S: Stage>(stage: &S) {
    over(stage, "old").await;
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(tidy(stage).await, 1);
    stage.advance(limits().retention).await;
    over(stage, "later").await;
    tidy(stage).await;
    assert!(
        matches!(
            again(stage, &Ask::new("nobody", "old")).await,
            Verdict::Repeat
        ),
        "its day is not over for long enough"
    );
    stage.advance(Duration::from_hours(48)).await;
    tidy(stage).await;
    assert!(
        matches!(
            again(stage, &Ask::new("nobody", "old")).await,
            Verdict::Ended(_)
        ),
        "it is dropped with its day"
    );
    assert!(matches!(
        again(stage, &Ask::new("nobody", "later")).await,
        Verdict::Repeat
    ));
}

async fn what_is_not_over_or_over_only_lately_stays_at_hand<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    let under_way = begun(stage, worker, &Ask::new("acme", "under-way")).await;
    stage.advance(Duration::from_hours(30)).await;
    over(stage, "lately").await;
    assert_eq!(tidy(stage).await, 0);
    assert_eq!(find(stage, &under_way.key).await.state, State::Placing);
    save(stage, worker, &under_way.expire(stage.now())).await;
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(tidy(stage).await, 1, "its end has not been published");
    told(stage, &Ask::new("acme", "under-way")).await;
    assert_eq!(tidy(stage).await, 1);
}

async fn a_delivery_taken_back_before_it_comes_is_not_placed<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let (worker, ask) = (enlist(stage).await, Ask::new("acme", "early"));
    assert!(stage.ledger().forbid(&ask.key()).await.unwrap());
    assert!(
        !stage.ledger().forbid(&ask.key()).await.unwrap(),
        "once is enough"
    );
    let mut admission = super::stage::plan(stage, &ask).await;
    let verdict = stage
        .ledger()
        .admit(worker, std::slice::from_ref(&admission))
        .await
        .unwrap()
        .remove(0);
    assert!(
        matches!(verdict, Verdict::Unwanted(ReasonCode::CancelledByRequest)),
        "{verdict:?}"
    );
    admission.unwanted(ReasonCode::CancelledByRequest, stage.now());
    let verdict = stage
        .ledger()
        .admit(worker, std::slice::from_ref(&admission))
        .await
        .unwrap()
        .remove(0);
    assert!(matches!(verdict, Verdict::Ended(_)), "{verdict:?}");
    assert!(matches!(again(stage, &ask).await, Verdict::Repeat));
    told(stage, &ask).await;
    // A tombstone whose request never comes is forgotten.
    stage
        .ledger()
        .forbid(&Ask::new("acme", "never").key())
        .await
        .unwrap();
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    assert_eq!(tidy(stage).await, 2);
    assert!(matches!(
        again(stage, &Ask::new("acme", "never")).await,
        Verdict::Placing(_)
    ));
}

async fn what_has_come_cannot_be_forbidden<S: Stage>(stage: &S) {
    over(stage, "there").await;
    assert!(
        !stage
            .ledger()
            .forbid(&Ask::new("nobody", "there").key())
            .await
            .unwrap()
    );
    stage
        .advance(limits().recent + Duration::from_secs(1))
        .await;
    tidy(stage).await;
    assert!(
        !stage
            .ledger()
            .forbid(&Ask::new("nobody", "there").key())
            .await
            .unwrap(),
        "nor what is put away"
    );
}

async fn what_is_missing_its_end_is_counted<S: Stage>(stage: &S) {
    tenant(stage, "acme", 1, 1.0).await;
    let worker = enlist(stage).await;
    begun(stage, worker, &Ask::new("acme", "a")).await;
    let margin = Duration::from_mins(6);
    stage.advance(Duration::from_mins(3) + margin).await;
    assert_eq!(stage.ledger().finals_missing(margin).await.unwrap(), 0);
    stage.advance(Duration::from_millis(1)).await;
    assert_eq!(stage.ledger().finals_missing(margin).await.unwrap(), 1);
}
