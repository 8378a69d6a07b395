//! Mistakes that can be switched on, to see whether the simulation finds them. Only in tests; never
//! in the shipped program.

use std::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The log says that it is on disk when it is not.
    FsyncSkipped,
    /// The term of a fence is not looked at when applied.
    FenceIgnored,
    /// A write is applied whatever the version it was to replace.
    GuardIgnored,
    /// A barrier returns at once.
    StaleRead,
    /// A watch leaves out a change.
    WatchDrops,
    /// A watch that goes on elsewhere shows again what it had shown.
    WatchRepeats,
    /// A state on disk does not say who the members are.
    SnapshotWithoutMembership,
    /// A state on disk does not say what was applied already.
    SnapshotWithoutSessions,
    /// Whether a request was applied already is not looked at.
    NoSessions,
    /// A member that led goes on in the same term after a restart: openraft's own default.
    LeaderRestored,
    /// What an entry does depends on who applies it.
    ApplyDiffers,
    /// That entries were dropped is not synced, but their files are gone.
    PurgeUnsynced,
    /// A vote is given before it is on disk.
    VoteUnsynced,
    /// What a killed process left unsynced counts as on disk for the next one, which does not sync it.
    StartUnsynced,
    /// A request that was sent is said to be refused when its time is up.
    SentIsRefused,
    /// A restored cluster goes on at the revision of the backup.
    RestoreGoesOn,
    /// A restored cluster holds what was written after the revision that was asked for.
    RestoresLater,
    /// A read waits for what its leader has announced, not for all that others may have seen.
    ReadsAnnounced,
    /// Requests that got lost are only looked for when nothing else is to be sent.
    LostWhileBusy,
}

/// Those that the simulation finds. The others have tests of their own.
pub(crate) const FOUND: [Mutant; 18] = [
    Mutant::FsyncSkipped,
    Mutant::FenceIgnored,
    Mutant::GuardIgnored,
    Mutant::StaleRead,
    Mutant::ReadsAnnounced,
    Mutant::WatchDrops,
    Mutant::WatchRepeats,
    Mutant::SnapshotWithoutMembership,
    Mutant::SnapshotWithoutSessions,
    Mutant::NoSessions,
    Mutant::LeaderRestored,
    Mutant::ApplyDiffers,
    Mutant::PurgeUnsynced,
    Mutant::VoteUnsynced,
    Mutant::StartUnsynced,
    Mutant::SentIsRefused,
    Mutant::RestoreGoesOn,
    Mutant::RestoresLater,
];

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this mistake is made, on this thread.
pub(crate) fn on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

pub(crate) fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}
