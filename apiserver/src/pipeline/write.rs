//! Create, update, patch and status: decide the new version against the old one, then one guarded
//! transaction. What was decided on a state that was behind is decided again after a barrier.

use super::{Call, Core, Old, Reply, What, configuration, convert, meta};
use crate::{
    admission::{self, Operation},
    catalog, custom, encode,
    errors::{self, may_be_stale},
    kind::Kind,
    kinds::KindDef,
    memo, services,
};
use bytes::Bytes;
use k8s::{FieldError, Object, PatchType, Resource, Revision, Status, Verb, apply::Scope};
use raft_store::{Error, Guard, Op, Stored, Term, Txn, Write};
use serde_json::Value;
use std::sync::Arc;

/// Upstream's `maxNameGenerationCreateAttempts`.
const NAME_ATTEMPTS: usize = 8;
/// How often a change is computed anew because another writer came first. Every lost race is
/// another's progress; the bound only stops a client from being kept for ever.
const RACE_ATTEMPTS: usize = 64;

/// What a change of an object asks for.
pub(crate) struct Wanted {
    pub(crate) new: Object,
    /// The client says which version it saw; `None`: whatever is there.
    pub(crate) expected: Option<Revision>,
}

/// Makes the new version of an object from the present one. Called again after a lost race.
pub(crate) type Change<'a> = &'a (dyn Fn(&Old<'_>) -> Result<Wanted, Status> + Send + Sync);

impl Core {
    pub(super) async fn create(&self, call: Call) -> Result<Reply, Status> {
        if call.kind.custom().is_some_and(|custom| custom.definition.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&call.resource(), &call.name, why));
        }
        let (object, warnings) = self.decode_object(&call)?;
        if call.kind.group.is_empty() && call.kind.plural == "pods" {
            admission::await_account(self, &call.namespace, &object).await;
        }
        let mut reply = match self.create_once(&call, object.clone()).await {
            Err(status) if may_be_stale(&status) && !call.notes.settled() => {
                self.barrier().await?;
                self.create_once(&call, object).await?
            }
            result => result?,
        };
        reply.warnings.splice(0..0, warnings);
        if let What::Object(object) = &reply.what {
            reply.warnings.extend((call.kind.warnings)(object, None));
        }
        Ok(reply)
    }

    /// The body as an object of the call's kind, stripped; its name and version checked.
    fn decode_object(&self, call: &Call) -> Result<(Object, Vec<String>), Status> {
        let validation = call.options.field_validation.as_deref();
        let (object, warnings) =
            self.decode_kind(&call.kind, &call.version, &call.body, validation)?;
        Ok((convert::take_in(call, object), warnings))
    }

    pub(super) async fn create_once(
        &self,
        call: &Call,
        mut object: Object,
    ) -> Result<Reply, Status> {
        if object.revision().is_some_and(|revision| revision.0 != 0) {
            let why = "resourceVersion should not be set on objects to be created";
            return Err(Status::new(500, "", why));
        }
        if !call.name.is_empty() {
            settle_name(&mut object, &call.name)?;
        }
        encode::strip(&mut object);
        meta::settle_namespace(&call.kind, &call.namespace, &mut object)?;
        meta::begin(&call.kind, &mut object);
        let generated = meta::name_it(&mut object);
        let mut cx = self.admission(call, Operation::Create, None);
        let name = if generated { String::new() } else { object.name().to_string() };
        cx.name = &name;
        self.fill_in(call, &mut object);
        self.complete(call, &mut object);
        let sent = object.metadata_mut().remove("managedFields");
        let mut warnings = Vec::new();
        if call.verb == Verb::Create {
            warnings.extend(meta::dedup_owners(&mut object, false));
        }
        self.manage(call, None, sent, &mut object);
        admission::mutate(&cx, &mut object).await?;
        warnings.extend(meta::dedup_owners(&mut object, true));
        self.fill_in(call, &mut object);
        (call.kind.prepare_create)(&mut object);
        self.complete(call, &mut object);
        let mut allocation = services::Allocation::for_create(self, &call.kind, &mut object)?;
        self.refuse_invalid(&call.kind, &object, None)?;
        admission::validate(&cx, &object).await?;
        let mut charge = admission::charge(&cx, &object).await?;
        if call.dry_run() {
            return Ok(Reply { created: true, warnings, ..Reply::new(What::Object(object)) });
        }
        for attempt in 1.. {
            let body = self.converter.stored(&call.kind, &object).await?;
            match self.put_new(call, &object, body, &allocation, &charge).await {
                Ok(revision) => {
                    encode::stamp_revision(&mut object, revision);
                    return Ok(Reply {
                        created: true,
                        warnings,
                        ..Reply::new(What::Object(object))
                    });
                }
                Err(Error::GuardFailed { write: 0, .. })
                    if generated && attempt < NAME_ATTEMPTS =>
                {
                    let name = meta::generate_name(object.str_at("/metadata/generateName"));
                    object.metadata_mut().insert("name".into(), name.into());
                    allocation.rename(&object);
                }
                Err(Error::GuardFailed { write: 0, current }) => {
                    return Err(exists(call, object.name(), current));
                }
                Err(Error::GuardFailed { .. }) if attempt < RACE_ATTEMPTS => {
                    self.barrier().await?;
                    allocation = allocation.again(self, &call.kind, &mut object)?;
                    charge.again(&cx, &object)?;
                }
                Err(error) => return Err(errors::status(error)),
            }
        }
        unreachable!("the loop only ends by returning")
    }

    async fn put_new(
        &self,
        call: &Call,
        object: &Object,
        body: Bytes,
        allocation: &services::Allocation,
        charge: &admission::Charge,
    ) -> Result<Revision, Error> {
        let key = super::key(&call.kind, object.namespace(), object.name());
        let mut writes = vec![Write { key, guard: Guard::Absent, op: Op::Put(body) }];
        writes.extend(allocation.writes());
        writes.extend(charge.writes());
        let txn = Txn { writes, fence: call.fence.map(Term), ..Txn::default() };
        let committed = self.store.txn(txn).await?;
        let revision = committed.revisions.first().copied().flatten();
        Ok(encode::revision(revision.unwrap_or(committed.revision)))
    }

    pub(super) async fn update(&self, call: Call) -> Result<Reply, Status> {
        let (object, warnings) = self.decode_object(&call)?;
        let change = |_: &Old<'_>| {
            let mut new = object.clone();
            settle_name(&mut new, &call.name)?;
            let expected = new.revision().filter(|revision| revision.0 != 0);
            if expected.is_none() && !call.kind.unconditional_update {
                let why = "must be specified for an update";
                let error = FieldError::invalid("metadata.resourceVersion", 0.into(), why);
                return Err(invalid(&call.kind, &call.name, &[error]));
            }
            Ok(Wanted { new, expected })
        };
        let result = self.modify(&call, &change).await;
        let mut reply = match result {
            Err(status) if status.code == 404 && call.kind.create_on_update => {
                if let Some(uid) = Some(object.uid()).filter(|uid| !uid.is_empty()) {
                    return Err(uid_precondition(&call.resource(), &call.name, uid, ""));
                }
                let mut object = object.clone();
                object.metadata_mut().remove("resourceVersion");
                self.create_once(&call, object).await?
            }
            result => result?,
        };
        reply.warnings.splice(0..0, warnings);
        Ok(reply)
    }

    /// Only `status` (and labels, annotations and finalizers) of the sent object counts.
    pub(crate) async fn update_status(&self, call: Call) -> Result<Reply, Status> {
        match call.verb {
            Verb::Patch(PatchType::Apply) => return self.apply(call).await,
            Verb::Patch(patch) => return self.patch(call, patch).await,
            _ => {}
        }
        let (object, warnings) = self.decode_object(&call)?;
        let change = |_: &Old<'_>| {
            let mut new = object.clone();
            settle_name(&mut new, &call.name)?;
            let expected = new.revision().filter(|revision| revision.0 != 0);
            Ok(Wanted { new, expected })
        };
        let mut reply = self.modify(&call, &change).await?;
        reply.warnings.splice(0..0, warnings);
        Ok(reply)
    }

    pub(super) async fn patch(&self, call: Call, patch: PatchType) -> Result<Reply, Status> {
        let super::Body::Value(document) = &call.body else {
            return Err(Status::bad_request("the request has no body"));
        };
        let warnings = std::sync::Mutex::new(Vec::new());
        let change = |old: &Old<'_>| {
            let (new, warned) = self.patched(&call, patch, document, old)?;
            if let Ok(mut warnings) = warnings.lock() {
                *warnings = warned;
            }
            // A patch that names a version is a precondition; else the new one inherits the old's.
            let named = new.revision().filter(|revision| Some(*revision) != old.revision());
            Ok(Wanted { expected: named.filter(|revision| revision.0 != 0), new })
        };
        let mut reply = self.modify(&call, &change).await?;
        reply.warnings.splice(0..0, warnings.into_inner().unwrap_or_default());
        Ok(reply)
    }

    /// What a write of a part of an object brought, whole: the body, or what a patch makes of `old`.
    pub(crate) fn sent(&self, call: &Call, old: &Old<'_>) -> Result<Object, Status> {
        let object = match (&call.body, call.verb) {
            (_, Verb::Patch(PatchType::Apply)) => {
                self.applied(call, Some(old), &configuration(call)?.0)?.0
            }
            (super::Body::Value(document), Verb::Patch(patch)) => {
                self.patched(call, patch, document, old)?.0
            }
            _ => self.decode_object(call)?.0,
        };
        Ok(object)
    }

    /// The object after the patch, decoded as if it had been sent whole.
    fn patched(
        &self,
        call: &Call,
        patch: PatchType,
        document: &Value,
        old: &Old<'_>,
    ) -> Result<(Object, Vec<String>), Status> {
        let mut whole = convert::show(call, old.whole());
        encode::stamp(&mut whole, &call.kind, &call.version);
        let validation = call.options.field_validation.as_deref();
        let (kind, version) = (&call.kind, &call.version);
        let (object, warnings) =
            self.patch_kind(kind, version, patch, whole.into_value(), document, validation)?;
        let mut object = convert::take_in(call, object);
        settle_name(&mut object, &call.name)?;
        Ok((object, warnings))
    }

    /// The loop of every change of an existing object.
    pub(crate) async fn modify(&self, call: &Call, change: Change<'_>) -> Result<Reply, Status> {
        let key = call.key();
        let mut fresh = false;
        for _ in 0..RACE_ATTEMPTS {
            let decided = match self.store.get(&key) {
                None => Err(call.not_found()),
                Some(stored) => {
                    let shown = self.served(&call.kind, stored.clone()).await?;
                    let shown = self.heartbeats.shown(shown);
                    self.decide(call, change, &shown).await.map(|next| (stored, shown, next))
                }
            };
            let (stored, shown, mut next) = match decided {
                Err(status) if !fresh && may_be_stale(&status) && !call.notes.settled() => {
                    self.barrier().await?;
                    fresh = true;
                    continue;
                }
                decided => decided?,
            };
            let body = self.converter.stored(&call.kind, &next.new).await?;
            let warnings = std::mem::take(&mut next.warnings);
            match self.commit(call, stored, shown, next, body).await {
                Err(Error::GuardFailed { .. }) => {
                    self.barrier().await?;
                    fresh = true;
                }
                result => {
                    let reply = result.map_err(errors::status)?;
                    return Ok(Reply { warnings, ..reply });
                }
            }
        }
        Err(Status::modified(&call.resource(), &call.name))
    }

    /// The new version, complete and checked; nothing is written yet.
    async fn decide(
        &self,
        call: &Call,
        change: Change<'_>,
        stored: &Arc<Stored>,
    ) -> Result<Next, Status> {
        let old = memo::object(stored);
        let present = Old::new(&old, stored);
        let Wanted { mut new, expected } = change(&present)?;
        if let Some(expected) = expected.or(call.options.precondition_revision)
            && expected != encode::revision(stored.revision)
        {
            return Err(Status::modified(&call.resource(), &call.name));
        }
        check_uid(call, &new, &old)?;
        encode::strip(&mut new);
        let sent = new.metadata_mut().remove("managedFields");
        meta::settle_namespace(&call.kind, &call.namespace, &mut new)?;
        meta::carry_over(&mut new, &old);
        let cx = self.admission(call, Operation::Update, Some(&old));
        let part = Part::of(&call.subresource);
        if part == Part::Status {
            new = with_status(call.kind.status_scope, new, &old);
            (call.kind.prepare_status)(&mut new, &old);
        }
        self.fill_in(call, &mut new);
        self.complete(call, &mut new);
        let mut warnings = Vec::new();
        if call.verb == Verb::Update {
            warnings.extend(meta::dedup_owners(&mut new, false));
        }
        self.manage(call, Some(&present), sent, &mut new);
        admission::mutate(&cx, &mut new).await?;
        warnings.extend(meta::dedup_owners(&mut new, true));
        self.fill_in(call, &mut new);
        let mut allocation = services::Allocation::default();
        if part == Part::Main {
            (call.kind.prepare_update)(&mut new, &old);
            allocation = services::Allocation::for_update(self, &call.kind, &mut new, &old)?;
        }
        self.complete(call, &mut new);
        if matches!(part, Part::Main | Part::Spec(_)) {
            meta::count_generation(&call.kind, &mut new, &old);
        }
        Self::settle_times(&present, &mut new);
        let forgiven = self.refuse_invalid(&call.kind, &new, Some((&old, part)))?;
        admission::validate(&cx, &new).await?;
        let charge = admission::charge(&cx, &new).await?;
        if part == Part::Main {
            warnings.extend((call.kind.warnings)(&new, Some(&old)));
        }
        warnings.extend(forgiven);
        Ok(Next { new, allocation, charge, warnings })
    }

    /// Writes the new version, or nothing if it equals the old one, or the deletion it completes.
    /// `shown` is `stored` in the call's version.
    async fn commit(
        &self,
        call: &Call,
        stored: Arc<Stored>,
        shown: Arc<Stored>,
        next: Next,
        body: Bytes,
    ) -> Result<Reply, Error> {
        let Next { mut new, allocation, charge, .. } = next;
        if body == stored.body && allocation.is_empty() && charge.is_empty() {
            return Ok(Reply::new(What::Stored(shown)));
        }
        if call.dry_run() {
            encode::stamp_revision(&mut new, encode::revision(stored.revision));
            return Ok(Reply::new(What::Object(new)));
        }
        let alone = allocation.is_empty() && charge.is_empty();
        if alone && self.heartbeat(&shown, &new) {
            encode::stamp_revision(&mut new, encode::revision(stored.revision));
            return Ok(Reply::new(What::Object(new)));
        }
        let guard = Guard::At(stored.revision);
        let (op, more) = if deletion_completes(&call.kind, &new) {
            (Op::Delete, services::Allocation::release(&call.kind, &new))
        } else {
            (Op::Put(body), allocation.writes().into_iter().chain(charge.writes()).collect())
        };
        let mut writes = vec![Write { key: stored.key.clone(), guard, op }];
        writes.extend(more);
        let txn = Txn { writes, fence: call.fence.map(Term), ..Txn::default() };
        let committed = self.store.txn(txn).await?;
        let revision = committed.revisions.first().copied().flatten();
        let revision = encode::revision(revision.unwrap_or(committed.revision));
        encode::stamp_revision(&mut new, revision);
        Ok(Reply::new(What::Object(new)))
    }

    /// Defaults: those of the schema, then the kind's own.
    fn fill_in(&self, call: &Call, object: &mut Object) {
        fill_in(&call.kind, object);
    }

    /// What upstream always prints (`status: {}`), after the kind had its say.
    fn complete(&self, call: &Call, object: &mut Object) {
        if call.kind.is_custom() {
            return;
        }
        if let Some((schema, ty)) = call.kind.stored_schema() {
            k8s::default::zero_values(schema, ty, object);
        }
    }

    /// What an update leaves wrong that was wrong before, or the refusal.
    fn refuse_invalid(
        &self,
        kind: &Kind,
        new: &Object,
        old: Option<(&Object, Part)>,
    ) -> Result<Vec<String>, Status> {
        let mut found = meta::validate(kind, new);
        let mut forgiven = Vec::new();
        if let Some((old, _)) = old {
            found.extend(meta::validate_update(new, old));
        }
        if let Some(custom) = kind.custom() {
            let status = matches!(old, Some((_, Part::Status)));
            let verdict = custom::validate(custom, new, old.map(|(old, _)| old), status);
            found.extend(verdict.errors);
            forgiven = verdict.forgiven;
        }
        found.extend(match old {
            Some((old, Part::Status)) => (kind.validate_status)(new, old),
            Some((old, Part::Main)) => (kind.validate)(new, Some(old)),
            Some((old, Part::Spec(name))) => (kind.validate_part)(name, new, old),
            Some((_, Part::Own)) => Vec::new(),
            None => (kind.validate)(new, None),
        });
        if found.is_empty() { Ok(forgiven) } else { Err(invalid(kind, new.name(), &found)) }
    }
}

/// Defaults: those of the schema, then the kind's own.
pub(super) fn fill_in(kind: &Kind, object: &mut Object) {
    if let Some(custom) = kind.custom() {
        return custom.fill_in(object);
    }
    if let Some((schema, ty)) = kind.stored_schema() {
        k8s::default::apply(schema, ty, object);
    }
    (kind.default)(object);
}

/// Which rules a change of an object is under.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The object itself, or its scale.
    Main,
    Status,
    /// A part of the spec with rules of its own, by the name of its subresource.
    Spec(&'static str),
    /// A subresource that makes its change itself (binding, finalize) and may do what no update may.
    Own,
}

impl Part {
    fn of(subresource: &str) -> Part {
        match subresource {
            "" | "scale" => Part::Main,
            "status" | "approval" => Part::Status,
            "ephemeralcontainers" => Part::Spec("ephemeralcontainers"),
            "resize" => Part::Spec("resize"),
            _ => Part::Own,
        }
    }
}

/// A new version on its way to the store.
struct Next {
    new: Object,
    allocation: services::Allocation,
    charge: admission::Charge,
    /// What the client is warned of.
    warnings: Vec<String>,
}

pub(crate) fn invalid(kind: &KindDef, name: &str, errors: &[FieldError]) -> Status {
    Status::invalid(kind.group, kind.kind, name, errors)
}

/// True if nothing keeps an object whose deletion was asked for any more.
pub(super) fn deletion_completes(kind: &KindDef, object: &Object) -> bool {
    object.deletion_timestamp().is_some()
        && object.int_at("/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && object.finalizers().next().is_none()
        && !(kind.held)(object)
}

/// The name in the body must be the one in the path, or absent.
pub(super) fn settle_name(object: &mut Object, name: &str) -> Result<(), Status> {
    let own = object.name();
    if own.is_empty() {
        object.metadata_mut().insert("name".into(), name.into());
    } else if own != name {
        return Err(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

fn check_uid(call: &Call, new: &Object, old: &Object) -> Result<(), Status> {
    let sent = call.options.precondition_uid.as_deref().unwrap_or(new.uid());
    if sent.is_empty() || sent == old.uid() {
        return Ok(());
    }
    Err(uid_precondition(&call.resource(), &call.name, sent, old.uid()))
}

pub(super) fn uid_precondition(
    resource: &Resource,
    name: &str,
    asked: &str,
    found: &str,
) -> Status {
    let why =
        format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}");
    Status::conflict(resource, name, why)
}

/// The old object with the new one's status and the metadata that goes with it.
fn with_status(scope: Scope, mut new: Object, old: &Object) -> Object {
    let mut merged = old.clone();
    encode::strip(&mut merged);
    match new.0.remove("status") {
        Some(status) => merged.0.insert("status".into(), status),
        None => merged.0.remove("status"),
    };
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        if !scope.below("metadata", field) {
            continue;
        }
        match new.metadata_mut().remove(field) {
            Some(value) => merged.metadata_mut().insert(field.into(), value),
            None => merged.metadata_mut().remove(field),
        };
    }
    merged
}

/// The document after the patch; what is wrong with a patch is told as upstream tells it.
pub(crate) fn apply_patch(
    schema: &k8s::schema::Schema,
    ty: &str,
    patch: PatchType,
    document: Value,
    by: &Value,
) -> Result<Value, Status> {
    let id =
        schema.get(ty).ok_or_else(|| Status::internal(format!("no type {ty} in the schema")))?;
    let patched = match patch {
        PatchType::Json => k8s::patch::json(document, by),
        PatchType::Merge => k8s::patch::merge(document, by),
        PatchType::StrategicMerge => k8s::patch::strategic(schema, id, document, by),
        PatchType::Apply => {
            return Err(Status::internal("a configuration is applied by its own path"));
        }
    };
    patched.map_err(|error| error.status())
}

fn exists(call: &Call, name: &str, current: Option<Arc<Stored>>) -> Status {
    let mut status = Status::already_exists(&catalog::resource(&call.kind, &call.version), name);
    if current.is_some_and(|stored| memo::object(&stored).deletion_timestamp().is_some()) {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}
