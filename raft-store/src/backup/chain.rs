//! A full backup and those that continue it, one after the other, as one sequence of records. Every
//! record is checked against those before it: nothing may be missing, doubled or out of order.

use super::{Error, Header, Reader, Unit};
use crate::{
    disk::{self, At, RecordHead},
    types::{Key, Revision},
};
use std::{collections::BTreeMap, io::Read, vec};

/// Backups in the order they continue each other.
pub struct Chain<R> {
    current: Reader<R>,
    later: vec::IntoIter<Reader<R>>,
    units: vec::IntoIter<Unit>,
    order: Order,
    /// Of the newest: what the whole sequence leads to.
    newest: Header,
}

/// A record that was checked.
pub(super) struct Checked {
    pub(super) unit: Unit,
    /// False: a deletion.
    pub(super) put: bool,
    /// The version that was current before it, if that is in the backups.
    pub(super) replaces: Option<At>,
}

impl<R: Read> Chain<R> {
    /// `readers` begin with a full backup, or with one whose base is not at hand: then what it
    /// leans on cannot be checked.
    pub fn new(readers: Vec<Reader<R>>) -> Result<Chain<R>, Error> {
        for (before, after) in readers.iter().zip(readers.iter().skip(1)) {
            continues(before, after)?;
        }
        let newest = readers.last().map(|reader| reader.header().clone());
        let mut later = readers.into_iter();
        let (Some(current), Some(newest)) = (later.next(), newest) else {
            return Err(Error::Refused("no backup is given".into()));
        };
        let order = Order::new(current.header());
        Ok(Chain { current, later, units: Vec::new().into_iter(), order, newest })
    }

    /// Of the newest backup.
    pub fn newest(&self) -> &Header {
        &self.newest
    }

    /// False if the first backup continues one that is not given.
    pub fn is_whole(&self) -> bool {
        self.order.whole
    }

    /// Objects there are now, and how many bytes have been read of the current backup.
    pub fn progress(&self) -> (&str, u64, usize) {
        (self.current.name(), self.current.offset(), self.order.now.len())
    }

    /// The next record; `None` when all of all backups has been checked.
    pub(super) fn next(&mut self) -> Result<Option<Checked>, Error> {
        loop {
            if let Some(unit) = self.units.next() {
                let bad = |why| Error::damaged(self.current.name(), why);
                return self.order.take(unit).map(Some).map_err(bad);
            }
            match self.current.next()? {
                Some(units) => self.units = units.into_iter(),
                None => {
                    let (at, end) = (self.order.last.revision, self.current.header().revision);
                    if at.max(self.order.floor) != end {
                        let why = format!("its last record is of revision {at}, not {end}");
                        return Err(Error::damaged(self.current.name(), why));
                    }
                    match self.later.next() {
                        Some(reader) => self.current = reader,
                        None => return Ok(None),
                    }
                }
            }
        }
    }
}

fn continues<R: Read>(before: &Reader<R>, after: &Reader<R>) -> Result<(), Error> {
    let (full, next) = (before.header(), after.header());
    let fits = next.cluster == full.cluster
        && next
            .base
            .as_ref()
            .is_some_and(|base| base.id == full.id && base.revision == full.revision);
    match fits {
        true => Ok(()),
        false => {
            let text = format!("{} does not continue {}", after.name(), before.name());
            Err(Error::Mismatch(text))
        }
    }
}

/// What must hold of the next record.
struct Order {
    whole: bool,
    /// After it, every revision has its record; up to it only what was current at it.
    floor: Revision,
    last: At,
    /// The current version of every object, as of `last`.
    now: BTreeMap<Key, At>,
}

impl Order {
    fn new(first: &Header) -> Order {
        let (floor, last, whole) = match &first.base {
            None => (first.oldest, Revision(0), true),
            Some(base) => (base.revision, base.revision, false),
        };
        Order { whole, floor, last: At::first(last), now: BTreeMap::new() }
    }

    fn take(&mut self, unit: Unit) -> Result<Checked, String> {
        let at = unit.at;
        let RecordHead { key, put, old } = disk::record_head(&unit.record)
            .ok_or_else(|| format!("the record at {at} is damaged"))?;
        let follows = match at.revision > self.floor {
            true => disk::follows(self.last.max(At::first(self.floor)), at),
            false => at > self.last,
        };
        if !follows {
            return Err(format!("{at} follows {}", self.last));
        }
        let replaces = self.now.get(&key).copied();
        if at.revision > self.floor && self.whole && replaces != old {
            let (space, path) = (&key.space, &key.path);
            return Err(format!("{at}: {space}/{path} replaces {old:?}, not {replaces:?}"));
        }
        match put {
            true => self.now.insert(key, at),
            false => self.now.remove(&key),
        };
        self.last = at;
        Ok(Checked { unit, put, replaces })
    }
}

/// What is known of backups after all of them was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub records: u64,
    /// At the newest revision.
    pub objects: usize,
}

/// Reads everything and restores nothing. `watch` is told now and then how far it is.
pub fn check<R: Read>(
    chain: &mut Chain<R>,
    mut watch: impl FnMut(&Chain<R>),
) -> Result<Found, Error> {
    let mut records = 0;
    while chain.next()?.is_some() {
        records += 1;
        if records % WATCH_EVERY == 0 {
            watch(chain);
        }
    }
    Ok(Found { records, objects: chain.order.now.len() })
}

/// Records between two looks at the progress.
pub(super) const WATCH_EVERY: u64 = 10_000;
