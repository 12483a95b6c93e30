//! Planted bugs, which show that the simulation finds such bugs.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// A POST without an answer counts as one that placed no call.
    SkipSettling,
    /// A POST that was not answered in time counts as one that was not sent.
    LateMeansFailed,
    /// A POST that timed out counts as one whose connection ended at once: Twilio had its time.
    HideTimeouts,
    /// A redirect of a POST is followed by a second POST.
    FollowRedirect,
    /// A write applies even if the row has changed since it was read.
    NoFence,
    /// A message is acknowledged before its delivery is committed.
    AckBeforeCommit,
    /// Statuses are published before their change is committed.
    PublishBeforeCommit,
    /// A status that the broker refused is published again after those that follow it.
    PublishRefusedLater,
    /// A refused status is published again many times.
    RepeatRefused,
    /// While one tenant's statuses are refused, those of others wait.
    RefusedStopsOthers,
    /// The deadline isn't checked again after a wait.
    ForgetExpiry,
    /// Requests lose their user, so that none is superseded.
    ForgetUsers,
    /// A cancellation that arrives before its request is lost.
    ForgetCancellations,
    /// The report that a code was entered is acknowledged, and not recorded.
    ForgetVerified,
    /// One call more than the account's limit may be in progress.
    ExceedMaxCalls,
    /// Cached settings are used for as long as a silent listener's connection seems open.
    TrustSilentListener,
    /// The wrong key starts the reading of the code.
    AnyKeyConfirms,
    /// The ledger's clock steps, and no worker notices.
    IgnoreClockSteps,
}

impl Bug {
    /// Those that a usual run must find. [`IgnoreClockSteps`](Self::IgnoreClockSteps) shows only
    /// where the ledger's clock steps.
    pub(super) const ALL: [Self; 17] = [
        Self::SkipSettling,
        Self::LateMeansFailed,
        Self::HideTimeouts,
        Self::FollowRedirect,
        Self::NoFence,
        Self::AckBeforeCommit,
        Self::PublishBeforeCommit,
        Self::PublishRefusedLater,
        Self::RepeatRefused,
        Self::RefusedStopsOthers,
        Self::ForgetExpiry,
        Self::ForgetUsers,
        Self::ForgetCancellations,
        Self::ForgetVerified,
        Self::ExceedMaxCalls,
        Self::TrustSilentListener,
        Self::AnyKeyConfirms,
    ];
}
