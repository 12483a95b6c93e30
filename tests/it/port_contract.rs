//! The contracts of the directory, telephony and status sink ports: a suite for each, run on the
//! in-memory port and on the real one. The ledger's contract is `ledger_contract`.

/// Runs every named check on both stages, a new one for each check.
macro_rules! on_both {
    ($in_memory:ty, $real:ty: $($check:ident),+ $(,)?) => {
        mod in_memory {
            $(
                #[tokio::test]
                async fn $check() {
                    super::$check(&mut <$in_memory>::new()).await;
                }
            )+
        }

        mod for_real {
            $(
                #[tokio::test]
                async fn $check() {
                    let mut stage = <$real>::new().await;
                    super::$check(&mut stage).await;
                    stage.close().await;
                }
            )+
        }
    };
}

mod directory;
mod sink;
mod telephony;
