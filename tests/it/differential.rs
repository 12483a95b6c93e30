//! The ledger on Postgres and the one in memory, driven by the same random operations.
//!
//! The test sets the time of both, so every answer and every row must be the same to the
//! microsecond. This test is the reason to trust simulations on the ledger in memory.

mod changes;
mod operation;
mod settings;
mod side;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::ledger_contract::stage::{MemoryStage, PgStage};
use operation::Operation;
use side::Side;

/// Operations per seed.
const OPERATIONS: u32 = 60;
/// All rows are compared after this many operations.
const COMPARE_EVERY: u32 = 5;

#[tokio::test]
async fn postgres_and_memory_agree_whatever_happens() {
    for seed in seeds() {
        let guard = SeedGuard(seed);
        let (on_postgres, in_memory) = (PgStage::new().await, MemoryStage::new());
        let compared = compare(
            seed,
            Side::new(&on_postgres).await,
            Side::new(&in_memory).await,
        )
        .await;
        assert!(compared.is_ok(), "{}", compared.unwrap_err());
        on_postgres.close().await;
        drop(guard);
    }
}

/// How a bug is planted in SQL: by a statement, or by replacing a part of a function.
enum Plant {
    Statement(&'static str),
    Text(&'static str, &'static str, &'static str),
}

const BUGS: [(&str, Plant); 4] = [
    (
        "the rate isn't kept",
        Plant::Text("admit", "tat = coalesce(m.next, p.tat)", "tat = p.tat"),
    ),
    (
        "void slots are used",
        Plant::Text("start_attempts", "d.slot_at >= t - in_slot_late", "true"),
    ),
    (
        "writes aren't fenced",
        Plant::Statement(
            "create function unfence() returns trigger language plpgsql as \
             $$ begin new.revision := old.revision; return new; end $$; \
             create trigger unfence before update on deliveries \
               for each row execute function unfence()",
        ),
    ),
    (
        "a newer request doesn't supersede",
        Plant::Text(
            "start_attempts",
            "(n.user_time, n.delivery_id) > (d.user_time, d.delivery_id)",
            "false",
        ),
    ),
];

#[tokio::test]
async fn bugs_planted_in_sql_are_found() {
    for (what, plant) in &BUGS {
        let mut found = None;
        for seed in 0..200 {
            let (on_postgres, in_memory) = (PgStage::new().await, MemoryStage::new());
            match plant {
                Plant::Statement(statement) => on_postgres.execute(statement).await,
                Plant::Text(function, from, to) => {
                    on_postgres.change_function(function, from, to).await;
                }
            }
            let compared = compare(
                seed,
                Side::new(&on_postgres).await,
                Side::new(&in_memory).await,
            )
            .await;
            on_postgres.close().await;
            if compared.is_err() {
                found = Some(seed);
                break;
            }
        }
        eprintln!("{what}: found with seed {found:?}");
        assert!(found.is_some(), "{what}: not found");
    }
}

async fn compare(
    seed: u64,
    mut on_postgres: Side<'_, PgStage>,
    mut in_memory: Side<'_, MemoryStage>,
) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    for step in 0..OPERATIONS {
        let operation = Operation::random(&mut rng, step);
        let answers = (
            on_postgres.perform(&operation).await,
            in_memory.perform(&operation).await,
        );
        same(seed, &format!("step {step}, {operation:#?}"), answers)?;
        if step % COMPARE_EVERY == COMPARE_EVERY - 1 {
            same(
                seed,
                &format!("after step {step}, {operation:#?}"),
                (on_postgres.snapshot().await, in_memory.snapshot().await),
            )?;
        }
    }
    same(
        seed,
        "what is left in the outbox",
        (on_postgres.leftovers().await, in_memory.leftovers().await),
    )
}

fn same(seed: u64, what: &str, (on_postgres, in_memory): (String, String)) -> Result<(), String> {
    if on_postgres == in_memory {
        return Ok(());
    }
    Err(format!(
        "seed {seed}: {what}\n\n--- Postgres ---\n{on_postgres}\n\n--- memory ---\n{in_memory}\n"
    ))
}

/// `VOICE_OTP_SEEDS` is a range (`0..500`) or a list (`7,19`).
fn seeds() -> Vec<u64> {
    let parse = |text: &str| {
        text.trim()
            .parse::<u64>()
            .expect("VOICE_OTP_SEEDS holds numbers: 0..500, or 7,19")
    };
    match std::env::var("VOICE_OTP_SEEDS") {
        Err(_) => (0..20).collect(),
        Ok(text) => match text.split_once("..") {
            Some((first, end)) => (parse(first)..parse(end)).collect(),
            None => text.split(',').map(parse).collect(),
        },
    }
}

/// Prints the seed when anything panics.
struct SeedGuard(u64);

impl Drop for SeedGuard {
    #[expect(clippy::print_stderr, reason = "a failing test must show its seed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with seed {0}; again: VOICE_OTP_SEEDS={0}", self.0);
        }
    }
}
