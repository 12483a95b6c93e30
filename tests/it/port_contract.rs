//! What a directory, a caller and a status sink must do: a suite for each, run on the port in memory and on the real
//! one. The ledger's suite is `ledger_contract`.

/// Runs every named check on two stages, each made anew for it.
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

mod caller;
mod directory;
mod sink;
