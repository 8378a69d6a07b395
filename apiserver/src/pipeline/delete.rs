//! Delete and deletecollection: at once, after a grace period, or when the finalizers are gone.

use super::{Call, Core, Reply, What, meta, read, write};
use crate::{
    admission::{self, Operation},
    encode,
    errors::{self, may_be_stale},
    kinds::KindDef,
    memo, services,
};
use k8s::{Object, Options, Status};
use raft_store::{Error, Guard, Op, Stored, Term, Txn, Write};
use serde_json::{Value, json};
use std::sync::Arc;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// As in `write`: bounded only so that nobody waits for ever.
const RACE_ATTEMPTS: usize = 64;

/// Kinds whose finished deletion is answered with the object (upstream's `ReturnDeletedObject`);
/// the others with a `Status` of success.
const RETURNED: &[(&str, &str)] = &[
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
];

/// What a deletion does to an object as it stands.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Nothing keeps it.
    Remove,
    /// It stays for now, so changed.
    Keep(Object),
    /// It is on its way already.
    Nothing,
}

/// What goes with a deletion: written in its transaction, or not at all.
#[derive(Default)]
pub(crate) struct Along {
    pub(crate) writes: Vec<Write>,
    /// What changes in the object if it stays for now.
    pub(crate) mark: Option<fn(&mut Object)>,
}

/// Decides whether an object may go, and what goes with it; asked again after a lost race.
pub(crate) type Judge<'a> = &'a (dyn Fn(&Object) -> Result<Along, Status> + Send + Sync);

impl Core {
    pub(crate) async fn delete(&self, call: &Call) -> Result<Reply, Status> {
        self.delete_if(call, None).await
    }

    /// A deletion in the name of another operation, which has been through admission itself.
    pub(crate) async fn delete_along(
        &self,
        call: &Call,
        judge: Judge<'_>,
    ) -> Result<Reply, Status> {
        self.delete_if(call, Some(judge)).await
    }

    async fn delete_if(&self, call: &Call, judge: Option<Judge<'_>>) -> Result<Reply, Status> {
        let key = call.key();
        let mut fresh = false;
        for _ in 0..RACE_ATTEMPTS {
            let decided = match self.store.get(&key) {
                None => Err(call.not_found()),
                Some(stored) => {
                    self.decide_deletion(call, judge, &stored).await.map(|plan| (stored, plan))
                }
            };
            let (stored, (plan, along)) = match decided {
                Err(status) if !fresh && may_be_stale(&status) && !call.notes.settled() => {
                    self.barrier().await?;
                    fresh = true;
                    continue;
                }
                decided => decided?,
            };
            match self.carry_out(call, stored, plan, along).await {
                Err(Error::GuardFailed { .. }) => {
                    self.barrier().await?;
                    fresh = true;
                }
                result => return self.shown(call, result.map_err(errors::status)?).await,
            }
        }
        Err(Status::modified(&call.resource(), &call.name))
    }

    /// Deletions decide about objects as they are stored, whatever their version, so that no
    /// conversion can keep one alive; what is answered is in the call's version.
    async fn shown(&self, call: &Call, reply: Reply) -> Result<Reply, Status> {
        let what = match reply.what {
            What::Stored(stored) => What::Stored(self.served(&call.kind, stored).await?),
            what => what,
        };
        Ok(Reply { what, ..reply })
    }

    async fn decide_deletion(
        &self,
        call: &Call,
        judge: Option<Judge<'_>>,
        stored: &Arc<Stored>,
    ) -> Result<(Plan, Vec<Write>), Status> {
        let old = memo::object(stored);
        let (resource, name) = (call.resource(), &call.name);
        if let Some(uid) = &call.options.precondition_uid
            && *uid != old.uid()
        {
            return Err(write::uid_precondition(&resource, name, uid, old.uid()));
        }
        let found = encode::revision(stored.revision);
        if let Some(asked) = call.options.precondition_revision
            && asked != found
        {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {asked}, ResourceVersion \
                 in object meta: {found}"
            );
            return Err(Status::conflict(&resource, name, why));
        }
        let Some(judge) = judge else {
            let cx = self.admission(call, Operation::Delete, Some(&old));
            admission::validate(&cx, &old).await?;
            return Ok((plan(&call.kind, &old, &call.options), Vec::new()));
        };
        let along = judge(&old)?;
        let mut plan = plan(&call.kind, &old, &call.options);
        if let (Plan::Keep(object), Some(mark)) = (&mut plan, along.mark) {
            mark(object);
        }
        Ok((plan, along.writes))
    }

    async fn carry_out(
        &self,
        call: &Call,
        stored: Arc<Stored>,
        plan: Plan,
        along: Vec<Write>,
    ) -> Result<Reply, Error> {
        let (op, kept, more) = match plan {
            Plan::Nothing => return Ok(Reply::new(What::Stored(stored))),
            Plan::Keep(mut object) => {
                encode::strip_stored(&call.kind, &mut object);
                if let Some(managed) = memo::managed(&stored) {
                    object.metadata_mut().insert("managedFields".into(), managed);
                }
                (Op::Put(encode::body(&object)), Some(object), Vec::new())
            }
            Plan::Remove => {
                let released = services::Allocation::release(&call.kind, &memo::object(&stored));
                (Op::Delete, None, released)
            }
        };
        let mut revision = stored.revision;
        if !call.dry_run() {
            let guard = Guard::At(stored.revision);
            let mut writes = vec![Write { key: stored.key.clone(), guard, op }];
            writes.extend(more);
            writes.extend(along);
            let txn = Txn { writes, fence: call.fence.map(Term), ..Txn::default() };
            let committed = self.store.txn(txn).await?;
            revision = committed.revisions.first().copied().flatten().unwrap_or(revision);
        }
        Ok(match kept {
            Some(object) if call.kind.is_custom() => {
                let body = encode::body(&object);
                let kept = Stored::new(stored.key.clone(), revision, stored.created, body);
                Reply::new(What::Stored(Arc::new(kept)))
            }
            Some(mut object) => {
                encode::stamp_revision(&mut object, encode::revision(revision));
                Reply::new(What::Object(object))
            }
            None if RETURNED.contains(&(call.kind.group, call.kind.plural)) => {
                let mut object = memo::parse(&stored);
                encode::stamp_revision(&mut object, encode::revision(revision));
                Reply::new(What::Object(object))
            }
            None => Reply::new(What::Other(deleted(&call.kind, &memo::object(&stored)))),
        })
    }

    /// Deletes what the selectors match, one by one as upstream does; what is gone meanwhile is
    /// nobody's fault.
    pub(super) async fn delete_collection(&self, call: Call) -> Result<Reply, Status> {
        let list = self.page(&call).await?;
        for stored in &list.items {
            let object = memo::object(stored);
            let one = Call {
                kind: call.kind.clone(),
                version: call.version.clone(),
                verb: k8s::Verb::Delete,
                namespace: object.namespace().to_string(),
                name: object.name().to_string(),
                subresource: String::new(),
                body: super::Body::None,
                options: Options {
                    // Whatever took the name since was not in the list.
                    precondition_uid: Some(object.uid().to_string()),
                    ..call.options.clone()
                },
                fence: call.fence,
                identity: call.identity.clone(),
                notes: call.notes.clone(),
            };
            match self.delete(&one).await {
                Err(status) if status.code == 404 || status.is_conflict() => {}
                result => result.map(|_| ())?,
            }
        }
        Ok(Reply::new(What::List(read::List { next: None, remaining: None, ..list })))
    }
}

fn deleted(kind: &KindDef, object: &Object) -> Object {
    let mut details = json!({ "name": object.name(), "kind": kind.plural, "uid": object.uid() });
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    success(details)
}

/// A `Status` of success about `details`.
pub(crate) fn success(details: Value) -> Object {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    });
    Object::from_value(status).expect("an object literal")
}

/// Upstream's `BeforeDelete` and `updateForGracefulDeletionAndFinalizers`, as one decision.
fn plan(kind: &KindDef, old: &Object, options: &Options) -> Plan {
    let mut new = old.clone();
    let finalizers = finalizers(old, options.propagation_policy.as_deref());
    let refinalized = !finalizers.iter().map(String::as_str).eq(old.finalizers());
    if refinalized {
        if finalizers.is_empty() {
            new.metadata_mut().remove("finalizers");
        } else {
            new.metadata_mut().insert("finalizers".into(), json!(finalizers));
        }
    }
    let kept = !finalizers.is_empty() || (kind.held)(old);
    let now = jiff::Timestamp::now();
    let Some(since) = old.deletion_timestamp() else {
        let grace = (kind.grace_period_seconds)(old, options.grace_period_seconds).max(0);
        if grace == 0 && !kept {
            return Plan::Remove;
        }
        mark(&mut new, now, grace);
        (kind.mark_deleted)(&mut new);
        return Plan::Keep(new);
    };
    let grace = old.int_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0);
    let asked =
        options.grace_period_seconds.filter(|asked| *asked < grace).map(|asked| asked.max(0));
    let left = asked.unwrap_or(grace);
    if left == 0 && !kept {
        return Plan::Remove;
    }
    if let Some(asked) = asked {
        // The clock started when the deletion was first asked for.
        let began = since.parse::<jiff::Timestamp>().unwrap_or(now)
            - jiff::SignedDuration::from_secs(grace);
        let metadata = new.metadata_mut();
        let until = meta::time(began + jiff::SignedDuration::from_secs(asked));
        metadata.insert("deletionTimestamp".into(), until.into());
        metadata.insert("deletionGracePeriodSeconds".into(), asked.into());
    }
    if new == *old { Plan::Nothing } else { Plan::Keep(new) }
}

fn mark(object: &mut Object, now: jiff::Timestamp, grace_seconds: i64) {
    let generation = object.generation();
    let until = now + jiff::SignedDuration::from_secs(grace_seconds);
    let metadata = object.metadata_mut();
    metadata.insert("deletionTimestamp".into(), meta::time(until).into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace_seconds.into());
    if generation > 0 {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

/// The finalizers after the propagation policy had its say; without one, those of the garbage
/// collector stay as they are.
fn finalizers(object: &Object, policy: Option<&str>) -> Vec<String> {
    let present = object.finalizers().map(str::to_string);
    let Some(policy) = policy else {
        return present.collect();
    };
    let mut list: Vec<String> =
        present.filter(|name| name != ORPHAN && name != FOREGROUND).collect();
    match policy {
        "Orphan" => list.push(ORPHAN.into()),
        "Foreground" => list.push(FOREGROUND.into()),
        _ => {}
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: KindDef = KindDef { kind: "Thing", plural: "things", ..KindDef::BASE };
    const GRACEFUL: KindDef =
        KindDef { grace_period_seconds: |_, requested| requested.unwrap_or(30), ..PLAIN };

    fn object(metadata: Value) -> Object {
        Object::from_value(json!({ "metadata": metadata })).expect("an object")
    }

    #[test]
    fn an_object_that_nothing_keeps_is_removed() {
        assert_eq!(plan(&PLAIN, &object(json!({"name": "a"})), &Options::default()), Plan::Remove);
    }

    #[test]
    fn finalizers_keep_an_object_that_is_marked() {
        let old = object(json!({"name": "a", "finalizers": ["example.com/x"]}));
        let Plan::Keep(new) = plan(&PLAIN, &old, &Options::default()) else { panic!("not kept") };
        assert!(new.deletion_timestamp().is_some());
        assert_eq!(new.int_at("/metadata/deletionGracePeriodSeconds"), Some(0));
        assert_eq!(plan(&PLAIN, &new, &Options::default()), Plan::Nothing);
    }

    #[test]
    fn a_grace_period_may_only_become_shorter() {
        let old = object(json!({"name": "a"}));
        let Plan::Keep(dying) = plan(&GRACEFUL, &old, &Options::default()) else {
            panic!("not kept")
        };
        assert_eq!(dying.int_at("/metadata/deletionGracePeriodSeconds"), Some(30));
        let longer = Options { grace_period_seconds: Some(60), ..Options::default() };
        assert_eq!(plan(&GRACEFUL, &dying, &longer), Plan::Nothing);
        let now = Options { grace_period_seconds: Some(0), ..Options::default() };
        assert_eq!(plan(&GRACEFUL, &dying, &now), Plan::Remove);
    }

    #[test]
    fn the_propagation_policy_chooses_the_collector_finalizer() {
        let old = object(json!({"name": "a", "finalizers": ["orphan", "example.com/x"]}));
        assert_eq!(finalizers(&old, None), ["orphan", "example.com/x"]);
        assert_eq!(finalizers(&old, Some("Background")), ["example.com/x"]);
        assert_eq!(finalizers(&old, Some("Foreground")), ["example.com/x", FOREGROUND]);
    }
}
