//! What watches showed of objects on which the scheduler and controllers work: Pods, ReplicaSets and
//! Deployments; and from that, who waited for them when.

use crate::{
    Violation,
    history::{Told, What},
    judge::seconds,
    record::{Operation, Record, Struck},
    scenario::Kind,
};
use std::{collections::BTreeMap, time::Duration};

/// One change of an object, as a watch showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When it was shown, on the clock of operations.
    pub at: u64,
    pub revision: u64,
    pub uid: String,
    pub name: String,
    /// Uid of the object that controls it.
    pub owner: Option<String>,
    /// `None`: deleted.
    pub state: Option<State>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Pod {
        node: Option<String>,
        /// It has neither ended nor been told to go.
        active: bool,
    },
    Set {
        size: u64,
    },
    Deployment {
        /// Pods that it may have at once: replicas and maxSurge.
        most: u64,
        generation: u64,
        /// Its controller has seen that generation, and only pods of it remain.
        done: bool,
    },
}

/// What watches of the same showed, each in order: every change once, when the first of them showed it, and up
/// to which revision all is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pub shown: Vec<Shown>,
    pub upto: u64,
}

impl Stream {
    /// One of the watches showed that. Each shows all that is newer than what was known when it began, so
    /// what is not newer now was shown by another.
    pub fn show(&mut self, shown: Shown) {
        let mut of_the_same = self.shown.iter().rev().take_while(|it| it.revision == self.upto);
        let known = |it: &Shown| (it.revision, &it.uid) == (shown.revision, &shown.uid);
        if shown.revision < self.upto || of_the_same.any(known) {
            return;
        }
        self.upto = shown.revision;
        self.shown.push(shown);
    }
}

/// The watches of a run that has such workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub pods: Stream,
    pub sets: Stream,
    pub deployments: Stream,
}

impl Objects {
    /// Up to which revision all is known.
    pub fn horizon(&self) -> u64 {
        self.pods.upto.min(self.sets.upto).min(self.deployments.upto)
    }
}

/// Somebody waits until a pod has a node, or a change of a Deployment is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Of which pod or change, for people.
    pub name: String,
    /// When a client asked for it.
    pub asked: u64,
    /// When it was known to be there.
    pub there: u64,
    pub until: Option<u64>,
}

impl Wait {
    fn begins(shown: &Shown, name: String, answers: &BTreeMap<u64, (u64, u64)>) -> Wait {
        let known = answers.get(&shown.revision).copied();
        let (asked, answered) = known.unwrap_or((shown.at, shown.at));
        Wait { name, asked, there: answered.min(shown.at), until: None }
    }
}

fn of_kind(record: &Record, kind: Kind) -> impl Iterator<Item = &Operation> {
    record.operations.iter().filter(move |it| it.workload == kind && it.writes())
}

/// Acknowledged writes by their revision: when they were called and answered.
fn answers(record: &Record, kind: Kind) -> BTreeMap<u64, (u64, u64)> {
    let answer = |it: &Operation| match &it.op.what {
        What::Write { told: Told::Done(Some(revision)), .. } => {
            Some((*revision, (it.op.called, it.op.returned)))
        }
        _ => None,
    };
    of_kind(record, kind).filter_map(answer).collect()
}

/// Who waited for a node. A pod that went without one waited for none.
pub fn unbound(record: &Record) -> Vec<Wait> {
    let answers = answers(record, Kind::Binding);
    let mut waits: BTreeMap<&str, Wait> = BTreeMap::new();
    for shown in &record.objects.pods.shown {
        let uid = shown.uid.as_str();
        match &shown.state {
            Some(State::Pod { node, .. }) => {
                let begins = || Wait::begins(shown, shown.name.clone(), &answers);
                let wait = waits.entry(uid).or_insert_with(begins);
                if node.is_some() {
                    wait.until = wait.until.or(Some(shown.at));
                }
            }
            _ if waits.get(uid).is_some_and(|wait| wait.until.is_none()) => {
                waits.remove(uid);
            }
            _ => {}
        }
    }
    waits.into_values().collect()
}

/// Who waited for a change of a Deployment to be carried out.
pub fn unreconciled(record: &Record) -> Vec<Wait> {
    let answers = answers(record, Kind::RollingUpdate);
    let (mut waits, mut newest): (Vec<Wait>, BTreeMap<&str, u64>) = Default::default();
    // By Deployment: those of `waits` that are not over.
    let mut open: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for shown in &record.objects.deployments.shown {
        let Some(State::Deployment { generation, done, .. }) = &shown.state else { continue };
        let newest = newest.entry(&shown.uid).or_insert(0);
        let open = open.entry(&shown.uid).or_default();
        if generation > newest {
            *newest = *generation;
            open.push(waits.len());
            let name = format!("generation {generation} of {}", shown.name);
            waits.push(Wait::begins(shown, name, &answers));
        }
        if *done {
            open.drain(..).for_each(|it| waits[it].until = Some(shown.at));
        }
    }
    waits
}

/// Times in which nothing that was waited for came about: each from when the first who asked did, or
/// from what came about before, until something came about. Who asked and was not heard counts too.
pub fn stalls(record: &Record, kind: Kind) -> Vec<(u64, u64)> {
    let waits = if kind == Kind::Binding { unbound(record) } else { unreconciled(record) };
    let mut ends: Vec<u64> = waits.iter().filter_map(|it| it.until).collect();
    ends.sort_unstable();
    ends.dedup();
    let unheard = of_kind(record, kind).filter(|it| {
        let creates = matches!(&it.op.what, What::Write { value: Some(_), .. });
        creates && matches!(&it.op.what, What::Write { told: Told::Unknown, .. })
    });
    let unheard = unheard.map(|it| (it.op.called, it.op.returned));
    let waiting = waits.iter().map(|it| (it.asked, it.until.unwrap_or(u64::MAX)));
    let mut asked: Vec<(u64, u64)> = waiting.chain(unheard).collect();
    asked.sort_unstable();
    // The latest end of all that were asked up to each.
    let latest: Vec<u64> = asked
        .iter()
        .scan(0, |latest, (_, end)| {
            *latest = end.max(latest).to_owned();
            Some(*latest)
        })
        .collect();
    let (mut stalls, mut last) = (Vec::new(), 0);
    for end in ends {
        let later = asked.partition_point(|(from, _)| *from <= last);
        let waited = later.checked_sub(1).is_some_and(|before| latest[before] > last);
        let from = if waited { last } else { asked.get(later).map_or(end, |(from, _)| *from) };
        stalls.push((from.min(end), end));
        last = end;
    }
    stalls
}

/// The longest part of a time in which no fault was on.
pub fn calm(from: u64, until: u64, strikes: &[Struck]) -> Duration {
    let mut faults: Vec<(u64, u64)> =
        strikes.iter().map(|it| (it.at, it.over.unwrap_or(u64::MAX))).collect();
    faults.sort_unstable();
    let (mut at, mut longest) = (from, 0);
    for (begin, end) in faults {
        longest = longest.max(begin.min(until).saturating_sub(at));
        at = at.max(end);
    }
    Duration::from_nanos(longest.max(until.saturating_sub(at)))
}

/// Who waited for longer than that though no fault was on.
pub fn late(
    check: &'static str,
    waits: &[Wait],
    record: &Record,
    allowed: Duration,
) -> Vec<Violation> {
    let end = record.ended.unwrap_or(0);
    let late = waits.iter().filter_map(|wait| {
        let waited = calm(wait.there, wait.until.unwrap_or(end), &record.strikes);
        let since = Duration::from_nanos(wait.there).as_secs_f64();
        let how = if wait.until.is_some() { "waited" } else { "waits still, and did" };
        let what = || {
            format!(
                "{} {how} for {} without any fault, since {since:.2}s",
                wait.name,
                seconds(waited)
            )
        };
        (waited > allowed).then(|| Violation::new(check, what()))
    });
    late.collect()
}

/// Acknowledged writes that the watch, which is beyond them, did not show.
pub fn lost(check: &'static str, record: &Record, kind: Kind, stream: &Stream) -> Vec<Violation> {
    let shown: std::collections::BTreeSet<u64> =
        stream.shown.iter().map(|it| it.revision).collect();
    let lost = of_kind(record, kind).filter_map(|it| {
        let What::Write { key, told: Told::Done(Some(revision)), .. } = &it.op.what else {
            return None;
        };
        let lost = *revision <= stream.upto && !shown.contains(revision);
        let what = || format!("{key} was written at {revision}, which the watch did not show");
        lost.then(|| Violation::new(check, what()))
    });
    lost.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{history::Guard, scenario::Harm};

    pub(crate) fn pod(at: u64, uid: &str, node: Option<&str>) -> Shown {
        let state = Some(State::Pod { node: node.map(str::to_owned), active: true });
        let (uid, name) = (uid.to_owned(), format!("pod-{uid}"));
        Shown { at, revision: at, uid, name, owner: None, state }
    }

    fn struck(at: u64, over: Option<u64>) -> Struck {
        let (detail, master) = (String::new(), "m1".to_owned());
        Struck { at, over, harm: Harm::Kill, detail, master, led: true }
    }

    #[test]
    fn what_several_watches_show_counts_once_and_when_the_first_showed_it() {
        let at = |at, revision, uid| Shown { revision, ..pod(at, uid, None) };
        let mut stream = Stream { upto: 4, ..Stream::default() };
        // The second is behind the first, overtakes it, and falls behind again.
        for shown in [at(10, 5, "a"), at(11, 5, "b"), at(12, 5, "a"), at(13, 5, "b")] {
            stream.show(shown);
        }
        for shown in [at(14, 7, "a"), at(15, 9, "b"), at(16, 7, "a"), at(17, 9, "b")] {
            stream.show(shown);
        }
        let seen: Vec<_> = stream.shown.iter().map(|it| (it.at, it.revision)).collect();
        assert_eq!((&seen[..], stream.upto), (&[(10, 5), (11, 5), (14, 7), (15, 9)][..], 9));
    }

    #[test]
    fn the_calm_part_of_a_time_is_what_no_fault_covers() {
        let strikes = [struck(10, Some(20)), struck(15, Some(40)), struck(90, None)];
        let calm = |from, until| calm(from, until, &strikes).as_nanos();
        assert_eq!((calm(0, 8), calm(0, 100), calm(12, 60)), (8, 50, 20));
        assert_eq!((calm(0, 15), calm(12, 30), calm(95, 200)), (10, 0, 0));
    }

    #[test]
    fn nothing_comes_about_while_somebody_waits() {
        let mut record = Record::new(0);
        // One asked for at 5 and there at 8; an unheard one from 22 to 24; one that goes unbound.
        let write = |record: &mut Record, key: &str, (called, returned): (u64, u64), told| {
            let value = (key, Some(key.to_owned()), Guard::Absent);
            let number = record.write(Kind::Binding, 1, called, value);
            record.told(number, returned, told);
        };
        write(&mut record, "pod-a", (5, 8), Told::Done(Some(9)));
        write(&mut record, "pod-x", (22, 24), Told::Unknown);
        for shown in [
            pod(9, "a", None),
            pod(12, "b", None),
            pod(15, "a", Some("n1")),
            pod(20, "b", Some("n1")),
            pod(26, "c", None),
            pod(27, "d", None),
            Shown { state: None, ..pod(28, "d", None) },
            pod(30, "c", Some("n2")),
            pod(31, "e", None),
        ] {
            record.objects.pods.show(shown);
        }
        assert_eq!(stalls(&record, Kind::Binding), [(5, 15), (15, 20), (22, 30)]);
        let waits = unbound(&record);
        let a = Wait { name: "pod-a".into(), asked: 5, there: 8, until: Some(15) };
        assert_eq!((waits.len(), &waits[0]), (4, &a));
        record.ended = Some(100);
        let late = |record: &Record, allowed| {
            late("binding", &unbound(record), record, Duration::from_nanos(allowed)).len()
        };
        assert_eq!((late(&record, 69), late(&record, 68), late(&record, 7)), (0, 1, 2));
        record.strikes.push(struck(30, Some(90)));
        assert_eq!(late(&record, 10), 0, "its time counts from the end of the fault");
        assert_eq!(lost("binding", &record, Kind::Binding, &record.objects.pods), []);
        record.objects.pods.shown.remove(0);
        assert_eq!(lost("binding", &record, Kind::Binding, &record.objects.pods).len(), 1);
    }

    #[test]
    fn a_change_waits_until_the_controller_has_carried_out_it_or_a_later_one() {
        let mut record = Record::new(0);
        for (at, generation, done) in [
            (1, 1, false),
            (4, 1, true),
            (6, 2, false),
            (7, 3, false),
            (9, 3, true),
            (11, 4, false),
        ] {
            let state = Some(State::Deployment { most: 3, generation, done });
            let (uid, name) = ("d".to_owned(), "web".to_owned());
            let shown = Shown { at, revision: at, uid, name, owner: None, state };
            record.objects.deployments.show(shown);
        }
        let waits = unreconciled(&record);
        let times: Vec<_> = waits.iter().map(|it| (it.there, it.until)).collect();
        assert_eq!(times, [(1, Some(4)), (6, Some(9)), (7, Some(9)), (11, None)]);
        assert_eq!(waits[1].name, "generation 2 of web");
        assert_eq!(stalls(&record, Kind::RollingUpdate), [(1, 4), (6, 9)]);
    }
}
