//! What a run has seen so far: every operation with its outcome, what each watcher was shown, and
//! what was done to whom. Filled in from outside; it neither waits nor asks.

use crate::{
    Violation,
    growing::Growing,
    history::{Event, Guard, Op, Told, Truth, What},
    informer::{self, Step},
    objects::Objects,
    scenario::{Harm, Kind},
    watched::Seen,
};
use std::collections::BTreeMap;

/// How an operation ended for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Acknowledged,
    /// Certainly not done.
    Refused,
    /// No answer, or one that says neither: it may be done.
    Unknown,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Acknowledged, Outcome::Refused, Outcome::Unknown];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Acknowledged => "acknowledged",
            Outcome::Refused => "refused",
            Outcome::Unknown => "unknown",
        }
    }
}

/// One operation of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub workload: Kind,
    pub op: Op,
    /// `None` while there is no answer.
    pub outcome: Option<Outcome>,
}

impl Operation {
    pub fn writes(&self) -> bool {
        matches!(self.op.what, What::Write { .. })
    }

    /// From the call to the answer, in nanoseconds.
    pub fn took(&self) -> u64 {
        self.op.returned.saturating_sub(self.op.called)
    }
}

/// A fault that happened. Times are of the same clock as those of operations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    pub at: u64,
    /// When whom it hit answered again.
    pub over: Option<u64>,
    pub harm: Harm,
    /// What the seed said of it beyond that; may be empty.
    pub detail: String,
    /// Or node.
    pub master: String,
    /// It led at that moment.
    pub led: bool,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub operations: Growing<Operation>,
    pub watchers: Vec<Growing<Seen>>,
    /// Of each client that lists and watches.
    pub informers: Vec<Growing<Step>>,
    /// What watches showed of what the scheduler and controllers work on.
    pub objects: Objects,
    pub strikes: Vec<Struck>,
    /// When the load stopped; what is written later says nothing of gaps.
    pub load_ended: Option<u64>,
    /// When nobody looked any more.
    pub ended: Option<u64>,
    /// What whoever carried the run out saw broken by itself.
    pub broken: Vec<Violation>,
}

impl Record {
    pub fn new(watchers: usize) -> Record {
        Record::with_informers(watchers, 0)
    }

    pub fn with_informers(watchers: usize, informers: usize) -> Record {
        let (watchers, informers) =
            (vec![Growing::default(); watchers], vec![Growing::default(); informers]);
        Record { watchers, informers, ..Record::default() }
    }

    /// A write is on its way; its number is for [`Record::told`].
    pub fn write(
        &mut self,
        workload: Kind,
        client: u64,
        called: u64,
        (key, value, guard): (&str, Option<String>, Guard),
    ) -> usize {
        let transaction = self.operations.len() as u64;
        let key = key.to_owned();
        let (fence, told) = (None, Told::Unknown);
        let what = What::Write { key, value, guard, fence, transaction, told };
        let op = Op { client, called, returned: u64::MAX, what };
        self.operations.push(Operation { workload, op, outcome: None });
        self.operations.len() - 1
    }

    /// What became of a write.
    pub fn told(&mut self, number: usize, now: u64, answer: Told) {
        let Some(operation) = self.operations.get_mut(number) else { return };
        operation.outcome = Some(match answer {
            Told::Done(_) => Outcome::Acknowledged,
            Told::Refused => Outcome::Refused,
            Told::Unknown => Outcome::Unknown,
        });
        operation.op.returned = now;
        if let What::Write { told, .. } = &mut operation.op.what {
            *told = answer;
        }
    }

    /// A read is over; `what` is empty if it failed, and then checked by nobody.
    pub fn read(
        &mut self,
        workload: Kind,
        client: u64,
        (called, returned): (u64, u64),
        what: Result<What, Outcome>,
    ) {
        let nothing =
            What::Read { prefix: "".into(), revision: 0, found: Vec::new(), linearizable: false };
        let outcome = what.as_ref().err().copied().unwrap_or(Outcome::Acknowledged);
        let op = Op { client, called, returned, what: what.unwrap_or(nothing) };
        self.operations.push(Operation { workload, op, outcome: Some(outcome) });
    }

    /// Up to which revision every watcher and informer was shown everything; what is newer cannot be
    /// judged yet.
    pub fn horizon(&self) -> u64 {
        let watchers = self.watchers.iter().map(shown);
        let informers = self.informers.iter().map(informer::reached);
        watchers.chain(informers).min().unwrap_or(0)
    }

    /// What was committed, as far as any watcher saw it up to a revision; and where two of them saw
    /// different things.
    pub fn truth(&self, horizon: u64) -> (Truth, Vec<Violation>) {
        let mut events: BTreeMap<u64, &Event> = BTreeMap::new();
        let mut found = Vec::new();
        for seen in self.watchers.iter().flat_map(Growing::iter) {
            let Seen::Event(event) = seen else { continue };
            if event.revision > horizon {
                continue;
            }
            let known = *events.entry(event.revision).or_insert(event);
            if known != event {
                let what = format!("one watch showed {known:?}, another {event:?}");
                found.push(Violation::new("watches", what));
            }
        }
        (Truth::new(events.into_values().cloned().collect()), found)
    }

    /// Those of the Lease, which no watcher is shown.
    pub fn of_lease(&self) -> Vec<Op> {
        let of_lease = self.operations.iter().filter(|it| it.workload == Kind::Lease);
        of_lease.filter(|it| it.outcome.is_some()).map(|it| it.op.clone()).collect()
    }

    /// The other operations as they can be judged at `horizon`: what was answered with a later revision
    /// is as if it had no answer yet.
    pub fn judged(&self, horizon: u64) -> Vec<Op> {
        let apart = |kind: Kind| kind == Kind::Lease || kind.needs_nodes();
        let shown = self.operations.iter().filter(|it| !apart(it.workload));
        let judged = shown.filter_map(|operation| {
            let mut op = operation.op.clone();
            match &mut op.what {
                What::Read { revision, linearizable, .. } => {
                    let counts = *linearizable && *revision <= horizon;
                    counts.then_some(op)
                }
                What::Write { told, .. } => {
                    if matches!(told, Told::Done(Some(revision)) if *revision > horizon) {
                        *told = Told::Unknown;
                    }
                    Some(op)
                }
            }
        });
        judged.collect()
    }
}

/// The last revision that a watcher was shown.
pub fn shown(seen: &Growing<Seen>) -> u64 {
    seen.last().map_or(0, Seen::revision)
}
