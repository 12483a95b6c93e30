//! The contract of a ledger: one suite, run on the ledger in memory and on the one on Postgres.

/// Runs every named check on both ledgers.
macro_rules! contract {
    ($($check:ident),+ $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check(&crate::ledger_contract::stage::MemoryStage::new()).await;
                }
            )+
        }

        mod on_postgres {
            $(
                #[tokio::test]
                async fn $check() {
                    let stage = crate::ledger_contract::stage::PgStage::new().await;
                    super::$check(&stage).await;
                    stage.close().await;
                }
            )+
        }
    };
}

mod admitting;
mod archiving;
mod cancelling;
mod circuits;
mod looking_up;
mod outbox;
mod pacing;
mod racing;
mod saving;
mod settings;
mod sharing;
pub(crate) mod stage;
mod starting;
mod workers;
