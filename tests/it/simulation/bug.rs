//! Bugs to plant, so that it is known that the simulation finds such.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A POST without an answer is taken for one that made no call.
    SkipSettling,
    /// A write counts whatever the row has become meanwhile.
    NoFence,
    /// A message is acknowledged before its delivery is committed.
    AckBeforeCommit,
    /// Statuses are published before the change that they tell of is committed.
    PublishBeforeCommit,
    /// After a wait nobody looks whether the code still lives.
    ForgetExpiry,
    /// Nobody knows which requests are of one user.
    ForgetUsers,
    /// A cancellation that comes before its request is forgotten.
    ForgetCancellations,
}

impl Bug {
    pub(super) const ALL: [Self; 7] = [
        Self::SkipSettling,
        Self::NoFence,
        Self::AckBeforeCommit,
        Self::PublishBeforeCommit,
        Self::ForgetExpiry,
        Self::ForgetUsers,
        Self::ForgetCancellations,
    ];
}
