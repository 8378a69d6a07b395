//! From backups to the data directory of the one member of a new cluster.
//!
//! Revisions go on above all that the old cluster may have issued, and all history is compacted: a
//! client that comes with a revision of the past lists again, once, and nobody takes a version for
//! another. Objects keep their own revisions, which mean the same in both clusters.

use super::{
    Error,
    chain::{Chain, WATCH_EVERY},
};
#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    config::Peer,
    disk::{StateBatch, StateDisk},
    durable,
    member::OWNER,
    raft::machine::Dirs,
    seal::Plain,
    state_engine::{Engines, rocks},
    types::{Cluster, MemberId, Revision},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Revisions left out at least, for what the old cluster may have done after the backup.
// 40,000 writes a second, twice what this store was ever measured to do through consensus, for 289
// days. It can be spent nine thousand times before a revision no longer fits a JSON number.
const GAP: u64 = 1_000_000_000_000;
/// A backup older than 116 days gets more: what a cluster can never reach, for every second since.
const WRITES_PER_SECOND_MAX: u64 = 100_000;
/// Records are written in batches of about this much.
const BATCH_BYTES: usize = 4 << 20;

/// What to make of a backup.
#[derive(Clone, Debug)]
pub struct Restoring {
    /// Must not exist, or be empty.
    pub data_dir: PathBuf,
    /// The state as of this revision; `None`: the newest.
    pub revision: Option<Revision>,
    /// The only member of the new cluster.
    pub member: MemberId,
    pub peer: Peer,
    /// Seconds since 1970.
    pub now: u64,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub cluster: Cluster,
    /// Whose state this is.
    pub state_of: Revision,
    /// What the new cluster begins with; whatever is older is `Compacted`.
    pub revision: Revision,
    pub objects: u64,
}

/// Builds the directory beside its place and moves it there when it is whole. Blocks.
pub fn restore<R: io::Read>(
    chain: &mut Chain<R>,
    restoring: &Restoring,
    watch: impl FnMut(&Chain<R>),
) -> Result<Restored, Error> {
    restore_on(rocks(), chain, restoring, watch)
}

/// The same on any disk.
pub(crate) fn restore_on<R: io::Read>(
    engines: Arc<dyn Engines>,
    chain: &mut Chain<R>,
    restoring: &Restoring,
    mut watch: impl FnMut(&Chain<R>),
) -> Result<Restored, Error> {
    let newest = chain.newest().clone();
    let at = restoring.revision.unwrap_or(newest.revision);
    if !chain.is_whole() {
        let text = format!("{} continues a backup that is not at hand", newest.id);
        return Err(Error::Refused(text));
    }
    if at < newest.oldest || at > newest.revision {
        let (oldest, newest) = (newest.oldest, newest.revision);
        let text = format!("revision {at} is not in the backup: it has {oldest} to {newest}");
        return Err(Error::Refused(text));
    }
    let place = Place::prepare(&restoring.data_dir)?;
    let cluster = Cluster::new(newest.cluster.epoch + 1);
    let revision = beginning(newest.revision, newest.taken_at, restoring.now);
    let dirs = Dirs::new(place.building.join("state"), engines);
    let dir = dirs.prepare().map_err(place.failed())?;
    let disk = dirs.open(&dir, Arc::new(Plain)).map_err(place.failed())?;
    let objects = fill(chain, &disk, at, &mut watch)?;
    let mut facts = StateBatch::default();
    facts.begin(&cluster, revision, restoring.member, &restoring.peer);
    disk.write(facts).and_then(|()| disk.flush()).map_err(place.failed())?;
    // Nothing is believed that was not read again.
    let loaded = disk.load().map_err(place.failed())?;
    let found: usize = loaded.spaces().iter().map(|(_, objects)| objects).sum();
    if found as u64 != objects {
        let why = format!("{objects} objects were written, {found} are there");
        return Err(Error::damaged("the new state", why));
    }
    drop(disk);
    place.finish(restoring.member)?;
    Ok(Restored { cluster, state_of: at, revision, objects })
}

/// Where revisions begin again: above `highest`, which was issued, and all that may have been.
fn beginning(highest: Revision, taken_at: u64, now: u64) -> Revision {
    #[cfg(test)]
    if mutants::on(Mutant::RestoreGoesOn) {
        return highest;
    }
    let since = now.saturating_sub(taken_at).saturating_mul(WRITES_PER_SECOND_MAX);
    Revision(highest.0.saturating_add(GAP.max(since)))
}

/// Writes what was current at `at`; reads, and checks, everything. The number of objects.
fn fill<R: io::Read>(
    chain: &mut Chain<R>,
    disk: &StateDisk,
    at: Revision,
    watch: &mut impl FnMut(&Chain<R>),
) -> Result<u64, Error> {
    let write = |batch| disk.write(batch).map_err(Error::io("the new state"));
    let (mut batch, mut bytes, mut records, mut objects) = (StateBatch::default(), 0, 0u64, 0u64);
    while let Some(checked) = chain.next()? {
        records += 1;
        if records % WATCH_EVERY == 0 {
            watch(chain);
        }
        #[cfg(test)]
        let at = if mutants::on(Mutant::RestoresLater) { Revision(u64::MAX) } else { at };
        if checked.unit.at.revision > at {
            continue;
        }
        bytes += checked.unit.record.len();
        objects += u64::from(checked.put);
        objects -= u64::from(checked.replaces.is_some());
        if let Some(replaced) = checked.replaces {
            batch.drop_record(replaced);
        }
        if checked.put {
            batch.put_record(checked.unit.at, &checked.unit.record);
        }
        if bytes >= BATCH_BYTES {
            write(std::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    write(batch)?;
    Ok(objects)
}

/// Where the directory is built, and where it goes.
struct Place {
    building: PathBuf,
    place: PathBuf,
}

impl Place {
    fn prepare(place: &Path) -> Result<Place, Error> {
        let place = std::path::absolute(place).map_err(Error::io("the data directory"))?;
        let shown = place.display();
        let taken = match fs::read_dir(&place) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(Error::io(format!("{shown}"))(error)),
        };
        if taken {
            let text = format!("{shown} is not empty: move it away, or name another directory");
            return Err(Error::Refused(text));
        }
        let name = place.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::Refused(format!("{shown} is no directory's name")))?;
        let building = place.with_file_name(format!("{name}.restoring"));
        // Of a restore that did not end.
        durable::remove_tree(&building)
            .and_then(|()| fs::create_dir_all(&building))
            .map_err(Error::io(format!("{}", building.display())))?;
        Ok(Place { building, place })
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("{}", self.building.display()))
    }

    fn finish(&self, member: MemberId) -> Result<(), Error> {
        let finish = || {
            durable::write(&self.building, OWNER, &format!("{member}\n"))?;
            fs::rename(&self.building, &self.place)?;
            match self.place.parent() {
                Some(parent) => fs::File::open(parent)?.sync_all(),
                None => Ok(()),
            }
        };
        finish().map_err(Error::io(format!("{}", self.place.display())))
    }
}

impl Drop for Place {
    /// What was not finished is of no use.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.building);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_begin_above_anything_that_may_have_been_issued() {
        let at = |age: u64| beginning(Revision(7), 1_000, 1_000 + age).0;
        assert_eq!(at(0), 7 + GAP);
        assert_eq!(at(24 * 3600), 7 + GAP);
        // A year later: 100,000 for each second.
        assert_eq!(at(365 * 24 * 3600), 7 + 365 * 24 * 3600 * 100_000);
        assert_eq!(beginning(Revision(7), 1_000, 0).0, 7 + GAP, "a clock that went back");
    }
}
