//! Names of backups: they say what must be known to find a chain, to list, and to forget. Pure.

use jiff::{Timestamp, tz::TimeZone};
use raft_store::{Revision, backup::Header};
use std::{collections::BTreeSet, fmt};

const BEGIN: &str = "coxswain";
const END: &str = ".cxb";
/// Digits of the cluster's id in a name: enough to tell the clusters of one place apart.
const CLUSTER_DIGITS: usize = 8;
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// What a backup stands on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Full,
    /// The backup that it continues.
    After(String),
}

/// The name of a backup, as a file or an object:
/// `coxswain-CLUSTER-TIME-rREVISION-ID.full.cxb`, or `….after-BASE.cxb`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The first digits of the cluster's id.
    pub cluster: String,
    /// Seconds since 1970.
    pub taken_at: u64,
    pub revision: Revision,
    pub id: String,
    pub kind: Kind,
}

impl Name {
    pub fn of(header: &Header) -> Name {
        Name {
            cluster: Name::digits(&header.cluster.id),
            taken_at: header.taken_at,
            revision: header.revision,
            id: header.id.clone(),
            kind: match &header.base {
                None => Kind::Full,
                Some(base) => Kind::After(base.id.clone()),
            },
        }
    }

    /// What a name says of a cluster's id.
    pub fn digits(cluster: &str) -> String {
        cluster.chars().take(CLUSTER_DIGITS).collect()
    }

    /// `None` for what is no name of a backup.
    pub fn parse(text: &str) -> Option<Name> {
        let text = text.strip_suffix(END)?;
        let (rest, kind) = text.split_once('.')?;
        let kind = match kind.strip_prefix("after-") {
            Some(base) => Kind::After(base.to_string()),
            None if kind == "full" => Kind::Full,
            None => return None,
        };
        let [begin, cluster, time, revision, id] = rest.split('-').collect::<Vec<_>>()[..] else {
            return None;
        };
        let time = jiff::civil::DateTime::strptime(TIME, time).ok()?;
        let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
        Some(Name {
            cluster: (begin == BEGIN).then(|| cluster.to_string())?,
            taken_at: u64::try_from(time).ok()?,
            revision: Revision(revision.strip_prefix('r')?.parse().ok()?),
            id: id.to_string(),
            kind,
        })
    }

    /// As people read it.
    pub fn time(&self) -> String {
        let time = i64::try_from(self.taken_at).ok().and_then(|at| Timestamp::from_second(at).ok());
        time.map_or_else(|| "?".to_string(), |time| time.to_string())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Name { cluster, revision, id, .. } = self;
        let time = i64::try_from(self.taken_at).ok().and_then(|at| Timestamp::from_second(at).ok());
        let time = time.unwrap_or(Timestamp::UNIX_EPOCH).strftime(TIME);
        write!(f, "{BEGIN}-{cluster}-{time}-r{revision}-{id}.")?;
        match &self.kind {
            Kind::Full => write!(f, "full{END}"),
            Kind::After(base) => write!(f, "after-{base}{END}"),
        }
    }
}

/// What must be read to restore the backup `last`, in order; an error names what is missing.
pub fn chain(all: &[Name], last: &Name) -> Result<Vec<Name>, String> {
    let mut chain = vec![last.clone()];
    while let Some(Name { id, kind: Kind::After(base), .. }) = chain.last() {
        let found = all.iter().find(|name| name.id == *base);
        let found = found.ok_or_else(|| format!("{id} continues {base}, which is not there"))?;
        if chain.contains(found) {
            return Err(format!("{} continues itself", found.id));
        }
        chain.push(found.clone());
    }
    chain.reverse();
    Ok(chain)
}

/// What goes if `keep` full backups of a cluster, and what continues them, stay. Backups of other
/// clusters are nobody's business here, nor is what stands on nothing that is there.
pub fn expired(all: &[Name], cluster: &str, keep: usize) -> Vec<Name> {
    let ours = || all.iter().filter(|name| name.cluster == cluster);
    let mut full: Vec<&Name> = ours().filter(|name| name.kind == Kind::Full).collect();
    full.sort_by_key(|name| (name.taken_at, name.revision));
    let old = full.len().saturating_sub(keep.max(1));
    let gone: BTreeSet<&str> = full[..old].iter().map(|name| name.id.as_str()).collect();
    let stands_on =
        |name: &&Name| chain(all, name).is_ok_and(|chain| gone.contains(chain[0].id.as_str()));
    // What stands on another goes before it: whoever is interrupted leaves no half of a chain.
    let mut names: Vec<Name> = ours().filter(stands_on).cloned().collect();
    names.sort_by_key(|name| std::cmp::Reverse((name.taken_at, name.revision)));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str, taken_at: u64, base: Option<&str>) -> Name {
        let kind = base.map_or(Kind::Full, |base| Kind::After(base.to_string()));
        let (cluster, revision) = ("0123abcd".to_string(), Revision(taken_at));
        Name { cluster, taken_at, revision, id: id.into(), kind }
    }

    fn ids(names: &[Name]) -> Vec<&str> {
        names.iter().map(|name| name.id.as_str()).collect()
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let full = name("aa", 1_800_000_000, None);
        assert_eq!(full.to_string(), "coxswain-0123abcd-20270115T080000Z-r1800000000-aa.full.cxb");
        for name in [full, name("bb", 1_800_000_001, Some("aa"))] {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in
            ["", "x.cxb", "coxswain-a-b-c-d.full.cxb", "coxswain-a-20270115T080000Z-r1-x.cxb"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_chain_is_found_or_said_to_be_broken() {
        let all = [name("a", 1, None), name("b", 2, Some("a")), name("c", 3, Some("b"))];
        assert_eq!(ids(&chain(&all, &all[2]).expect("whole")), ["a", "b", "c"]);
        let broken = chain(&all[1..], &all[2]).expect_err("broken");
        assert_eq!(broken, "b continues a, which is not there");
        let round = [name("x", 1, Some("y")), name("y", 2, Some("x"))];
        assert!(chain(&round, &round[0]).is_err());
    }

    #[test]
    fn the_newest_full_backups_stay_with_all_that_continues_them() {
        let mut all = vec![
            name("a", 1, None),
            name("a1", 2, Some("a")),
            name("a2", 3, Some("a1")),
            name("b", 4, None),
            name("b1", 5, Some("b")),
            name("c", 6, None),
        ];
        assert_eq!(ids(&expired(&all, "0123abcd", 2)), ["a2", "a1", "a"]);
        assert_eq!(ids(&expired(&all, "0123abcd", 1)), ["b1", "b", "a2", "a1", "a"]);
        assert_eq!(ids(&expired(&all, "0123abcd", 0)), ["b1", "b", "a2", "a1", "a"], "one stays");
        assert!(expired(&all, "0123abcd", 3).is_empty());
        all.push(Name { cluster: "ffffffff".into(), ..name("z", 0, None) });
        all.push(name("orphan", 1, Some("gone")));
        assert_eq!(ids(&expired(&all, "0123abcd", 2)), ["a2", "a1", "a"], "no other's, no orphan");
    }
}
