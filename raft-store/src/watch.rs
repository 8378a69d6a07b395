//! A watch: every change of one space and prefix after a revision, once each, in order.

#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    hub::Found,
    shared::Shared,
    time::blocking,
    types::{Change, Error, Revision},
};
use std::sync::Arc;
use tokio::sync::watch;

/// At most this many changes come from one call.
// Enough to make the wake-up cheap per change, few enough to encode without holding up others.
const CHANGES_MAX: usize = 512;
/// How many revisions of all spaces one read of history looks at.
const HISTORY_CHUNK: usize = 1024;

/// For every change of the space under the prefix with a revision above the one asked for:
/// `next` returns it exactly once, in order of revision, or fails with `Compacted`, after which
/// the watch is of no more use.
pub struct Watch {
    shared: Arc<Shared>,
    space: Arc<str>,
    prefix: Arc<str>,
    /// Every matching change up to here has been returned.
    cursor: Revision,
    wake: watch::Receiver<Revision>,
    _counted: Arc<()>,
}

impl Watch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        space: &str,
        prefix: &str,
        after: Revision,
    ) -> Result<Watch, Error> {
        let space: Arc<str> = space.into();
        let wake = shared.subscribe(&space);
        let counted = {
            let core = shared.read();
            let (revision, floor) = (core.state.revision(), core.state.floor());
            if after > revision {
                return Err(Error::Future { asked: after, current: revision });
            }
            if after < floor {
                return Err(Error::Compacted { oldest: floor });
            }
            core.hub.watcher_token()
        };
        #[cfg(test)]
        let after = match mutants::on(Mutant::WatchRepeats) {
            true => Revision(after.0.saturating_sub(1).max(shared.read().state.floor().0)),
            false => after,
        };
        Ok(Watch { shared, space, prefix: prefix.into(), cursor: after, wake, _counted: counted })
    }

    /// Every matching change up to and including this revision has been returned already.
    pub fn position(&self) -> Revision {
        self.shared.read().hub.quiet_until(&self.space, self.cursor)
    }

    /// The next changes, at least one, oldest first; waits for them. Cancel-safe.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Error> {
        loop {
            self.shared.check_running()?;
            self.wake.borrow_and_update();
            let (found, floor) = {
                let core = self.shared.read();
                let found = core.hub.find(&self.space, &self.prefix, self.cursor, CHANGES_MAX);
                (found, core.state.floor())
            };
            match found {
                Found::Changes(changes, to) => {
                    self.cursor = to;
                    #[cfg(test)]
                    let changes = match mutants::on(Mutant::WatchDrops) {
                        true => changes.into_iter().filter(|it| it.revision.0 % 97 != 5).collect(),
                        false => changes,
                    };
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                    self.wait().await?;
                }
                Found::Older(_) if self.cursor < floor => {
                    return Err(Error::Compacted { oldest: floor });
                }
                Found::Older(begin) => {
                    let (changes, to) = self.older(begin).await?;
                    self.cursor = to;
                    if !changes.is_empty() {
                        return Ok(changes);
                    }
                }
            }
        }
    }

    async fn wait(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            error = self.shared.until_stopped() => Err(error),
            changed = self.wake.changed() => match changed {
                Ok(()) => Ok(()),
                Err(_) => Err(Error::Stopped("the hub is gone".into())),
            }
        }
    }

    async fn older(&self, begin: Revision) -> Result<(Vec<Arc<Change>>, Revision), Error> {
        let cursor = self.cursor;
        let mut changes = history(&self.shared, cursor, begin, HISTORY_CHUNK).await?;
        let to = changes.last().map_or(begin, |change| change.revision);
        changes.retain(|change| {
            let key = change.key();
            key.space == self.space && key.path.starts_with(&*self.prefix)
        });
        Ok((changes, to))
    }
}

/// Changes that have left the ring, without gaps, off the async threads.
pub(crate) async fn history(
    shared: &Arc<Shared>,
    after: Revision,
    until: Revision,
    limit: usize,
) -> Result<Vec<Arc<Change>>, Error> {
    let compacted = || Error::Compacted { oldest: shared.read().state.floor() };
    let Some(history) = shared.history() else { return Err(compacted()) };
    let read = blocking(move || history.changes(after, until, limit)).await;
    let changes = read.map_err(|error| Error::Stopped(error.to_string()))??;
    // Compaction may have run meanwhile; what is above the floor has no gaps.
    let firsts = changes.iter().filter(|change| change.place == 0);
    let gapless = firsts.clone().zip(after.0 + 1..).all(|(change, n)| change.revision.0 == n);
    let complete = firsts.count() == limit.min((until.0 - after.0) as usize);
    if after < shared.read().state.floor() || !gapless || !complete {
        return Err(compacted());
    }
    Ok(changes)
}
