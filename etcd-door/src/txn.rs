//! Transactions. What they depend on is decided on one look at this member's state; the store's guards
//! then see to it that nothing of that has changed when the writes are applied, or it is decided anew.
//! All writes have one revision, and reads among them see what came before them and nothing else.

use crate::{
    keys::{self, Span},
    kv::Door,
    proto::rpc::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RequestOp,
        ResponseOp, TxnRequest, TxnResponse, request_op::Request, response_op::Response,
    },
    range::{self, Found},
    record::{self, KEYS, LeaseId, key_at, key_value, lease_of, needs, open},
    status,
};
use raft_store::{Change, Committed, Error, Guard, Op, Revision, Stored, Txn, View, Write};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::Status;

/// As etcd's clients know it.
const OPERATIONS_MAX: usize = 128;
/// A transaction that others make impossible for this long is given up.
const DEADLINE: Duration = Duration::from_secs(10);

/// Does what a request says, exactly once, or says why not.
pub(crate) async fn run(
    door: &Door,
    request: &TxnRequest,
) -> Result<(TxnResponse, Revision), Status> {
    check(request)?;
    let store = door.store();
    let deadline = Instant::now() + DEADLINE;
    // What is answered without writing must be of a state that is not older than the call.
    let mut fresh = is_serializable(request);
    while Instant::now() < deadline {
        let plan = store.look(|view| Plan::make(view, request));
        match plan {
            Ok(plan) if plan.is_write() => match store.txn(plan.txn()).await {
                Ok(committed) => return plan.written(door, request, committed).await,
                // What is in the way has been applied here.
                Err(Error::GuardFailed { .. }) => fresh = true,
                Err(error) => return Err(status::of(error)),
            },
            Ok(_) | Err(_) if !fresh => {
                store.barrier().await.map_err(status::of)?;
                fresh = true;
            }
            Ok(plan) => return plan.read(door, request).await,
            Err(status) => return Err(status),
        }
    }
    Err(status::timeout())
}

/// Refuses what is wrong whatever the state.
fn check(request: &TxnRequest) -> Result<(), Status> {
    check_operations(request)?;
    touched(&request.success)?;
    touched(&request.failure)?;
    Ok(())
}

/// Refuses what is wrong with any operation, as deep as it may be.
fn check_operations(request: &TxnRequest) -> Result<(), Status> {
    let longest = [request.compare.len(), request.success.len(), request.failure.len()];
    if longest.iter().any(|length| *length > OPERATIONS_MAX) {
        return Err(status::too_many_operations());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(status::empty_key());
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
            Some(Request::RequestRange(range)) => range::check(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) if delete.key.is_empty() => {
                return Err(status::empty_key());
            }
            Some(Request::RequestDeleteRange(_)) => {}
            Some(Request::RequestTxn(inner)) => check_operations(inner)?,
        }
    }
    Ok(())
}

pub(crate) fn check_put(put: &PutRequest) -> Result<(), Status> {
    if put.key.is_empty() {
        return Err(status::empty_key());
    }
    if put.ignore_value && !put.value.is_empty() {
        return Err(status::value_provided());
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(status::lease_provided());
    }
    Ok(())
}

/// What operations write. A key is put once and not deleted besides.
#[derive(Default)]
struct Touched {
    puts: Vec<Arc<str>>,
    deletes: Vec<Span>,
}

impl Touched {
    fn add(&mut self, other: Touched) -> Result<(), Status> {
        let taken = |path: &Arc<str>| {
            self.puts.contains(path) || self.deletes.iter().any(|span| span.contains(path))
        };
        let deleted = |path: &Arc<str>| other.deletes.iter().any(|span: &Span| span.contains(path));
        if other.puts.iter().any(taken) || self.puts.iter().any(deleted) {
            return Err(status::duplicate_key());
        }
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        Ok(())
    }
}

fn touched(ops: &[RequestOp]) -> Result<Touched, Status> {
    let mut all = Touched::default();
    for op in ops {
        let mut one = Touched::default();
        match &op.request {
            None | Some(Request::RequestRange(_)) => {}
            Some(Request::RequestPut(put)) => one.puts.push(keys::path(&put.key)),
            Some(Request::RequestDeleteRange(it)) => {
                one.deletes.push(Span::new(&it.key, &it.range_end));
            }
            Some(Request::RequestTxn(inner)) => {
                // Only one of its branches is taken: they may write the same.
                for branch in [touched(&inner.success)?, touched(&inner.failure)?] {
                    one.puts.extend(branch.puts);
                    one.deletes.extend(branch.deletes);
                }
            }
        }
        all.add(one)?;
    }
    Ok(all)
}

/// Reads only, all of which may be stale. Comparing alone is no such read.
fn is_serializable(request: &TxnRequest) -> bool {
    let stale = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestTxn(inner)) => is_serializable(inner),
        _ => false,
    };
    let mut ops = request.success.iter().chain(&request.failure).peekable();
    ops.peek().is_some() && ops.all(stale)
}

/// One operation of the branches taken, in order.
enum Step<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    /// With the place of its write.
    Delete(&'a DeleteRangeRequest, usize),
}

impl Step<'_> {
    /// Whether it changes this path, unless a step before it did.
    fn writes(&self, path: &str) -> bool {
        match self {
            Step::Range(_) => false,
            Step::Put(put) => *keys::path(&put.key) == *path,
            Step::Delete(it, _) => Span::new(&it.key, &it.range_end).contains(path),
        }
    }

    /// Whether its answer tells more than that it was done.
    fn looks_back(&self) -> bool {
        match self {
            Step::Range(range) => range::asked(range).is_none(),
            Step::Put(put) => put.prev_kv,
            Step::Delete(it, _) => it.prev_kv || !it.range_end.is_empty(),
        }
    }
}

/// What a request comes to at one revision.
struct Plan<'a> {
    revision: Revision,
    /// Which branch each transaction takes, in order of appearance.
    branches: Vec<bool>,
    steps: Vec<Step<'a>>,
    writes: Vec<Write>,
    /// What the steps found, if they only read.
    found: Vec<Found>,
}

impl<'a> Plan<'a> {
    fn make(view: &View<'_>, request: &'a TxnRequest) -> Result<Plan<'a>, Status> {
        let mut plan = Plan {
            revision: view.revision(),
            branches: Vec::new(),
            steps: Vec::new(),
            writes: Vec::new(),
            found: Vec::new(),
        };
        let mut conditions = Vec::new();
        plan.decide(view, request, &mut conditions)?;
        for condition in conditions {
            plan.require(condition);
        }
        if !plan.is_write() {
            let reads = plan.steps.iter().map(|step| match step {
                Step::Range(range) if range::asked(range).is_none() => range::now(view, range),
                _ => Found::default(),
            });
            plan.found = reads.collect();
        }
        Ok(plan)
    }

    fn decide(
        &mut self,
        view: &View<'_>,
        request: &'a TxnRequest,
        conditions: &mut Vec<Write>,
    ) -> Result<(), Status> {
        let holds = compare::all(view, &request.compare, conditions);
        self.branches.push(holds);
        for op in taken(request, holds) {
            match &op.request {
                None => {}
                Some(Request::RequestRange(range)) => {
                    if let Some(at) = range::asked(range) {
                        range::readable(view, at)?;
                    }
                    self.steps.push(Step::Range(range));
                }
                Some(Request::RequestPut(put)) => self.put(view, put)?,
                Some(Request::RequestDeleteRange(delete)) => self.delete(delete),
                Some(Request::RequestTxn(inner)) => self.decide(view, inner, conditions)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, view: &View<'_>, put: &'a PutRequest) -> Result<(), Status> {
        let key = key_at(&keys::path(&put.key));
        let mut guard = Guard::Any;
        let (mut lease, mut value) = (LeaseId::new(put.lease), put.value.clone());
        if put.ignore_lease || put.ignore_value {
            let current = view.get(&key).ok_or_else(status::key_not_found)?;
            guard = Guard::At(current.revision);
            let (lease_now, value_now) = open(&current.body);
            lease = if put.ignore_lease { lease_now } else { lease };
            value = if put.ignore_value { value_now } else { value };
        }
        let attachment = lease.map(|lease| lease.attachment(&key.path));
        self.writes.push(Write { key, guard, op: Op::Put(record::body(lease, &value)) });
        if let (Some(lease), Some(key)) = (lease, attachment) {
            view.get(&lease.record()).ok_or_else(status::lease_not_found)?;
            self.writes.push(needs(lease));
            self.writes.push(Write { key, guard: Guard::Any, op: Op::Put(Vec::new().into()) });
        }
        self.steps.push(Step::Put(put));
        Ok(())
    }

    fn delete(&mut self, delete: &'a DeleteRangeRequest) {
        let span = Span::new(&delete.key, &delete.range_end);
        let op = match &span {
            Span::One(_) => Op::Delete,
            Span::Many(_, until) => Op::DeleteUntil(until.clone()),
        };
        let at = self.writes.len();
        self.writes.push(Write { key: key_at(span.from()), guard: Guard::Any, op });
        self.steps.push(Step::Delete(delete, at));
    }

    /// Adds a condition: to the write of the same key, if that has none yet.
    fn require(&mut self, condition: Write) {
        // Without writes nothing depends on it: what was read is answered.
        if !self.is_write() {
            return;
        }
        let same = self.writes.iter_mut().find(|write| {
            write.guard == Guard::Any
                && condition.op == Op::Check
                && write.key == condition.key
                && matches!(write.op, Op::Put(_) | Op::Delete)
        });
        match same {
            Some(write) => write.guard = condition.guard,
            None => self.writes.push(condition),
        }
    }

    fn is_write(&self) -> bool {
        !self.writes.is_empty()
    }

    fn txn(&self) -> Txn {
        let changing = |write: &&Write| !matches!(write.op, Op::Check | Op::CheckUntil(_));
        let mut changing = self.writes.iter().filter(changing);
        let span = |write: &Write| matches!(write.op, Op::DeleteUntil(_));
        let one_revision = changing.clone().count() > 1 || changing.any(span);
        Txn { writes: self.writes.clone(), fence: None, one_revision }
    }

    /// The answer of a request that wrote nothing.
    async fn read(
        mut self,
        door: &Door,
        request: &TxnRequest,
    ) -> Result<(TxnResponse, Revision), Status> {
        let mut answers = Vec::new();
        for (step, found) in self.steps.iter().zip(std::mem::take(&mut self.found)) {
            let Step::Range(range) = step else { continue };
            let found = match range::asked(range) {
                None => found,
                Some(_) => range::find(door.store(), range).await?.0,
            };
            answers.push(range_answer(door, range, found, self.revision));
        }
        Ok((self.response(door, request, answers, self.revision), self.revision))
    }

    /// The answer of a request that was applied.
    async fn written(
        self,
        door: &Door,
        request: &TxnRequest,
        committed: Committed,
    ) -> Result<(TxnResponse, Revision), Status> {
        let revision = committed.revision;
        let changed = committed.revisions.iter().any(Option::is_some);
        let looks_back = self.steps.iter().any(Step::looks_back);
        let changes = match changed && looks_back {
            true => self.changes(door, revision).await?,
            false => Vec::new(),
        };
        let mut answers = Vec::new();
        for (number, step) in self.steps.iter().enumerate() {
            let own = || changes.iter().filter(|(of, _)| *of == number).map(|(_, change)| change);
            answers.push(match step {
                Step::Range(range) => {
                    let later = changes.iter().filter(|(of, _)| *of > number);
                    let later = later.map(|(_, change)| &**change);
                    let found = read_among(door, range, revision, later).await?;
                    range_answer(door, range, found, revision)
                }
                Step::Put(put) => {
                    let old = own().next().filter(|_| put.prev_kv);
                    let old = old.and_then(|change| change.old.as_ref());
                    let prev_kv = old.map(|old| key_value(old, false));
                    Response::ResponsePut(PutResponse { header: door.header(revision), prev_kv })
                }
                Step::Delete(delete, at) => {
                    let one = delete.range_end.is_empty();
                    let deleted = match one {
                        true => i64::from(committed.revisions[*at].is_some()),
                        false => own().count() as i64,
                    };
                    let old = own().filter(|_| delete.prev_kv).filter_map(|it| it.old.as_ref());
                    let prev_kvs = old.map(|old| key_value(old, false)).collect();
                    let header = door.header(revision);
                    let answer = DeleteRangeResponse { header, deleted, prev_kvs };
                    Response::ResponseDeleteRange(answer)
                }
            });
        }
        Ok((self.response(door, request, answers, revision), revision))
    }

    /// The changes of a revision that is this transaction's, each with the step that made it.
    async fn changes(
        &self,
        door: &Door,
        revision: Revision,
    ) -> Result<Vec<(usize, Arc<Change>)>, Status> {
        let before = Revision(revision.0 - 1);
        let mut watch = door.store().watch(KEYS, "", before).map_err(|_| applied(revision))?;
        let changes = watch.next().await.map_err(|_| applied(revision))?;
        let own = changes.into_iter().take_while(|change| change.revision == revision);
        let of_step = |change: Arc<Change>| {
            let path = &change.key().path;
            let step = self.steps.iter().position(|step| step.writes(path));
            step.map(|step| (step, change))
        };
        Ok(own.filter_map(of_step).collect())
    }

    fn response(
        &self,
        door: &Door,
        request: &TxnRequest,
        answers: Vec<Response>,
        revision: Revision,
    ) -> TxnResponse {
        let (mut branches, mut answers) = (self.branches.iter().copied(), answers.into_iter());
        build(door, request, revision, &mut branches, &mut answers)
    }
}

fn applied(revision: Revision) -> Status {
    Status::unknown(format!("applied at revision {revision}; what it replaced is compacted"))
}

fn taken(request: &TxnRequest, holds: bool) -> &[RequestOp] {
    if holds { &request.success } else { &request.failure }
}

/// What a range among writes sees at their revision: all but the changes of later steps.
async fn read_among(
    door: &Door,
    range: &RangeRequest,
    revision: Revision,
    later: impl Iterator<Item = &Change>,
) -> Result<Found, Status> {
    if range::asked(range).is_some() {
        return Ok(range::find(door.store(), range).await?.0);
    }
    let span = range::span(range);
    let found = range::at_revision(door.store(), &span, None, revision).await?;
    let mut items: BTreeMap<Arc<str>, Arc<Stored>> =
        found.items.into_iter().map(|item| (item.key.path.clone(), item)).collect();
    for change in later.filter(|change| span.contains(&change.key().path)) {
        match &change.old {
            Some(old) => items.insert(old.key.path.clone(), old.clone()),
            None => items.remove(&change.key().path),
        };
    }
    Ok(Found::all(items.into_values().collect()))
}

fn range_answer(door: &Door, range: &RangeRequest, found: Found, revision: Revision) -> Response {
    Response::ResponseRange(range::answer(range, found, door.header(revision)))
}

/// Puts the answers of the steps where their operations were.
fn build(
    door: &Door,
    request: &TxnRequest,
    revision: Revision,
    branches: &mut impl Iterator<Item = bool>,
    answers: &mut std::vec::IntoIter<Response>,
) -> TxnResponse {
    let succeeded = branches.next().unwrap_or(false);
    let mut responses = Vec::new();
    for op in taken(request, succeeded) {
        let response = match &op.request {
            Some(Request::RequestTxn(inner)) => {
                let inner = build_inner(door, inner, revision, branches, answers);
                Some(Response::ResponseTxn(inner))
            }
            _ => answers.next(),
        };
        responses.push(ResponseOp { response });
    }
    TxnResponse { header: door.header(revision), succeeded, responses }
}

fn build_inner(
    door: &Door,
    request: &TxnRequest,
    revision: Revision,
    mut branches: &mut dyn Iterator<Item = bool>,
    answers: &mut std::vec::IntoIter<Response>,
) -> TxnResponse {
    build(door, request, revision, &mut branches, answers)
}

mod compare {
    //! Comparisons, and the weakest guards that keep what they found.

    use super::*;
    use crate::proto::rpc::{
        Compare,
        compare::{CompareResult, CompareTarget, TargetUnion},
    };
    use raft_store::SpanCheck;
    use std::cmp::Ordering;

    /// Whether all hold. Conditions are added that keep the answer as it is.
    pub(super) fn all(view: &View<'_>, compares: &[Compare], keep: &mut Vec<Write>) -> bool {
        // One that fails is enough to decide; one key is easier to hold still than many.
        let fails = |compare: &&Compare| !holds(view, compare);
        let failing = compares.iter().filter(fails).min_by_key(|it| !it.range_end.is_empty());
        match failing {
            Some(compare) => keep.push(condition(view, compare)),
            None => keep.extend(compares.iter().map(|compare| condition(view, compare))),
        }
        failing.is_none()
    }

    fn holds(view: &View<'_>, compare: &Compare) -> bool {
        match Span::new(&compare.key, &compare.range_end) {
            Span::One(path) => of(compare, view.get(&key_at(&path)).map(|stored| &**stored)),
            Span::Many(from, until) => {
                let mut keys = view.between(KEYS, &from, until.as_deref()).peekable();
                match keys.peek() {
                    None => of(compare, None),
                    Some(_) => keys.all(|stored| of(compare, Some(stored))),
                }
            }
        }
    }

    fn of(compare: &Compare, stored: Option<&Stored>) -> bool {
        let number = |of: fn(&Stored) -> u64| stored.map_or(0, of).cast_signed();
        let asked = match &compare.target_union {
            Some(
                TargetUnion::Version(number)
                | TargetUnion::CreateRevision(number)
                | TargetUnion::ModRevision(number)
                | TargetUnion::Lease(number),
            ) => *number,
            Some(TargetUnion::Value(_)) | None => 0,
        };
        let ordering = match compare.target() {
            CompareTarget::Version => number(|stored| stored.version).cmp(&asked),
            CompareTarget::Create => number(|stored| stored.created.0).cmp(&asked),
            CompareTarget::Mod => number(|stored| stored.revision.0).cmp(&asked),
            CompareTarget::Lease => {
                let lease = stored.and_then(lease_of).map_or(0, |lease| lease.0);
                lease.cmp(&asked)
            }
            CompareTarget::Value => {
                let asked = match &compare.target_union {
                    Some(TargetUnion::Value(value)) => &value[..],
                    _ => &[],
                };
                // What is not there has no value to compare.
                let Some(stored) = stored else { return false };
                open(&stored.body).1[..].cmp(asked)
            }
        };
        match compare.result() {
            CompareResult::Equal => ordering == Ordering::Equal,
            CompareResult::NotEqual => ordering != Ordering::Equal,
            CompareResult::Greater => ordering == Ordering::Greater,
            CompareResult::Less => ordering == Ordering::Less,
        }
    }

    fn condition(view: &View<'_>, compare: &Compare) -> Write {
        match Span::new(&compare.key, &compare.range_end) {
            Span::One(path) => {
                let key = key_at(&path);
                let guard = match view.get(&key) {
                    None => Guard::Absent,
                    Some(_) if asks_for_existence(compare) => Guard::Exists,
                    Some(stored) => Guard::At(stored.revision),
                };
                Write { key, guard, op: Op::Check }
            }
            Span::Many(from, until) => {
                let (mut keys, mut newest) = (0, Revision(0));
                for stored in view.between(KEYS, &from, until.as_deref()) {
                    keys += 1;
                    newest = newest.max(stored.revision);
                }
                let check = SpanCheck { until, keys, newest };
                Write { key: key_at(&from), guard: Guard::Any, op: Op::CheckUntil(check) }
            }
        }
    }

    /// Versions and revisions of what exists are above 0: its answer is the same for all of them.
    fn asks_for_existence(compare: &Compare) -> bool {
        let zero = matches!(
            compare.target_union,
            Some(
                TargetUnion::Version(0)
                    | TargetUnion::CreateRevision(0)
                    | TargetUnion::ModRevision(0)
            ) | None
        );
        let counted = matches!(
            compare.target(),
            CompareTarget::Version | CompareTarget::Create | CompareTarget::Mod
        );
        zero && counted && compare.result() != CompareResult::Less
    }
}
