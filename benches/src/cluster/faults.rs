//! The faults, one at a time.

use std::time::{Duration, SystemTime};

use voice_otp_schemas::Timestamp;

use super::servers::Servers;
use super::workers::Workers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    KillNode,
    FreezeNode,
    CutNode,
    KillPrimary,
    FreezePrimary,
    KillWorker,
    FreezeWorker,
}

/// A fault that was injected, and is over.
pub(crate) struct InjectedFault {
    /// What was done to whom.
    pub(crate) what: String,
    pub(crate) began: Timestamp,
    /// When all servers and workers were in order again.
    pub(crate) recovered: Timestamp,
}

/// How long a killed node or worker stays away.
const AWAY: Duration = Duration::from_secs(5);
/// How long a worker is frozen: longer than its lease.
const WORKER_FREEZE: Duration = Duration::from_secs(15);

impl Fault {
    /// Every fault, in the order of a round.
    pub(crate) const ALL: [Self; 7] = [
        Self::KillNode,
        Self::KillPrimary,
        Self::FreezeNode,
        Self::FreezePrimary,
        Self::KillWorker,
        Self::CutNode,
        Self::FreezeWorker,
    ];
    /// The faults of a run of less than two minutes.
    pub(crate) const SHORT: [Self; 3] = [Self::KillNode, Self::KillPrimary, Self::FreezePrimary];

    /// Breaks something, a freeze or a cut for so long, and waits until everything is healthy
    /// again.
    pub(crate) async fn inject(
        self,
        servers: &Servers,
        workers: &mut Workers,
        freeze: Duration,
    ) -> anyhow::Result<InjectedFault> {
        let (target, verb) = match self {
            Self::KillNode => (servers.leader().await?, "kill"),
            Self::FreezeNode => (servers.leader().await?, "freeze"),
            Self::CutNode => (servers.leader().await?, "cut"),
            Self::KillPrimary => (servers.primary().await?, "kill"),
            Self::FreezePrimary => (servers.primary().await?, "freeze"),
            Self::KillWorker => (workers.choose(), "kill"),
            Self::FreezeWorker => (workers.choose(), "freeze"),
        };
        let began = Timestamp::from(SystemTime::now());
        match self {
            Self::KillNode => {
                servers.kill(&target).await?;
                tokio::time::sleep(AWAY).await;
                servers.start(&target).await?;
            }
            Self::FreezeNode | Self::FreezePrimary => {
                servers.freeze(&target).await?;
                tokio::time::sleep(freeze).await;
                servers.thaw(&target).await?;
            }
            Self::CutNode => {
                servers.cut(&target).await?;
                tokio::time::sleep(freeze).await;
                servers.heal(&target).await?;
            }
            // The watchdog makes it the standby of the other.
            Self::KillPrimary => servers.kill(&target).await?,
            Self::KillWorker => {
                workers.kill().await?;
                tokio::time::sleep(AWAY).await;
                workers.restart()?;
            }
            Self::FreezeWorker => {
                workers.signal("STOP").await?;
                tokio::time::sleep(WORKER_FREEZE).await;
                workers.signal("CONT").await?;
            }
        }
        if self.is_of_postgres() {
            // Before this the cluster may still look as before the fault.
            servers.other_primary_than(&target).await?;
        }
        servers.wait_until_healthy().await?;
        Ok(InjectedFault {
            what: format!("{verb} {target}"),
            began,
            recovered: Timestamp::from(SystemTime::now()),
        })
    }

    fn is_of_postgres(self) -> bool {
        matches!(self, Self::KillPrimary | Self::FreezePrimary)
    }
}
