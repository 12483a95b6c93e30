//! Planted bugs, which show that the simulation finds such bugs.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A POST without an answer counts as one that placed no call.
    SkipSettling,
    /// A write applies even if the row has changed since it was read.
    NoFence,
    /// A message is acknowledged before its delivery is committed.
    AckBeforeCommit,
    /// Statuses are published before their change is committed.
    PublishBeforeCommit,
    /// The deadline isn't checked again after a wait.
    ForgetExpiry,
    /// Requests lose their user, so that none is superseded.
    ForgetUsers,
    /// A cancellation that arrives before its request is lost.
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
