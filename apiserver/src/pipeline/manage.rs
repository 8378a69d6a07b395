//! Who owns which field of what is written (KEP-555), and server-side apply. The rules are
//! `k8s::apply`'s; here is where a request meets them.

use super::{Body, Call, Change, Core, Reply, Wanted, convert, meta};
use crate::{
    authz::Attributes,
    encode,
    kinds::{BUILT_IN, KindDef},
    memo,
};
use k8s::{
    Object, PatchType, Status, Verb,
    apply::{AnyKind, Managers, Scope, Versions, Write},
    schema::Schema,
};
use raft_store::Stored;
use serde_json::Value;
use std::{
    ops::Deref,
    sync::{Mutex, OnceLock},
};

/// Deletion and creation by others between two looks at an object; each is another's progress.
const APPEARANCES: usize = 8;

/// The present version of an object that is to change, without its managed fields, which only some
/// changes look at.
pub(crate) struct Old<'a> {
    object: &'a Object,
    stored: &'a Stored,
    managed: OnceLock<Option<Value>>,
}

impl<'a> Old<'a> {
    pub(super) fn new(object: &'a Object, stored: &'a Stored) -> Old<'a> {
        Old { object, stored, managed: OnceLock::new() }
    }

    /// `metadata.managedFields`, read when first asked for.
    pub(crate) fn managed(&self) -> Option<&Value> {
        self.managed.get_or_init(|| memo::managed(self.stored)).as_ref()
    }

    pub(crate) fn managers(&self) -> Managers {
        self.managed().cloned().map(Managers::trusted).unwrap_or_default()
    }

    /// The whole object, managed fields included.
    pub(crate) fn whole(&self) -> Object {
        let mut whole = self.object.clone();
        if let Some(managed) = self.managed() {
            whole.metadata_mut().insert("managedFields".into(), managed.clone());
        }
        whole
    }
}

impl Deref for Old<'_> {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.object
    }
}

/// How a call's writes are kept track of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Track {
    /// What the new version says stands: it was worked out with the change itself.
    Done,
    /// As upstream does it for this subresource: not at all.
    Never,
    Update,
}

impl Track {
    fn of(call: &Call) -> Track {
        match (call.subresource.as_str(), call.verb) {
            ("scale", _) | (_, Verb::Patch(PatchType::Apply)) => Track::Done,
            ("binding" | "eviction" | "token", _) => Track::Never,
            _ => Track::Update,
        }
    }
}

/// The fields a subresource may change (upstream's `GetResetFields`, kind by kind).
fn scope(call: &Call) -> Scope {
    match call.subresource.as_str() {
        "status" | "approval" => call.kind.status_scope,
        _ if call.kind.has_status() => Scope::MAIN,
        _ => Scope::ALL,
    }
}

/// The versions of the call's kind.
struct Served<'a>(&'a Call);

impl Served<'_> {
    /// The built-in kind and version that an `apiVersion` names; some go by two groups.
    fn version<'v>(&self, api_version: &'v str) -> Option<(&'static KindDef, &'v str)> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let own = &self.0.kind;
        let mut kinds = BUILT_IN.iter().filter(|kind| kind.space() == own.space());
        let kind = kinds.find(|kind| kind.group == group && kind.versions.contains(&version))?;
        Some((kind, version))
    }
}

impl<'a> Versions<AnyKind<'a>> for Served<'a> {
    fn place(&self, api_version: &str) -> Option<AnyKind<'a>> {
        if let Some(custom) = self.0.kind.custom() {
            // Not served ones too: an object may be older than that.
            return Some(AnyKind::custom(&custom.definition.version(api_version)?.node));
        }
        let (kind, version) = self.version(api_version)?;
        place(kind.schema_of(version))
    }

    fn convert(&self, object: &Object, api_version: &str) -> Option<Object> {
        let (kind, version) = self.version(api_version)?;
        let (from, to) = (self.0.kind.foreign(&self.0.version), kind.foreign(version));
        if from.is_none() && to.is_none() {
            return None;
        }
        let stored = from.map_or_else(|| object.clone(), |from| (from.to_stored)(object.clone()));
        Some(match to {
            Some(to) => (to.from_stored)(stored),
            None => stored,
        })
    }
}

fn place(ty: &str) -> Option<AnyKind<'static>> {
    let schema = Schema::built_in();
    schema.get(ty).map(|ty| AnyKind::built_in(schema, ty))
}

impl Core {
    /// The writer a call is to `k8s::apply`; `None` for a kind without a schema.
    fn writer<'a>(
        &self,
        call: &'a Call,
        api_version: &'a str,
        now: &'a str,
        versions: &'a Served<'a>,
    ) -> Option<Write<'a, AnyKind<'a>>> {
        Some(Write {
            place: call.kind.place(&call.version)?,
            api_version,
            kind: call.kind.kind,
            subresource: &call.subresource,
            manager: call.options.field_manager.as_deref().unwrap_or_default(),
            scope: scope(call),
            now,
            versions,
        })
    }

    /// Sets the managers of `new`: of what `old` was changed into, or of a new object. `sent` is what
    /// the client (or its patch) says of them.
    pub(super) fn manage(
        &self,
        call: &Call,
        old: Option<&Old<'_>>,
        sent: Option<Value>,
        new: &mut Object,
    ) {
        let track = Track::of(call);
        if track != Track::Update {
            let managed =
                if track == Track::Done { sent } else { old.and_then(Old::managed).cloned() };
            managed.map(Managers::trusted).unwrap_or_default().put(new);
            return;
        }
        let (now, api_version) = (meta::now(), encode::api_version(call.kind.group, &call.version));
        let versions = Served(call);
        let live = old.map(Old::managers).unwrap_or_default();
        let Some(writer) = self.writer(call, &api_version, &now, &versions) else { return };
        let nothing = Object::default();
        let old: &Object = old.map_or(&nothing, |old| old);
        let managers = match call.kind.foreign(&call.version) {
            None => writer.update(live, sent.as_ref(), old, new),
            Some(_) => {
                let (old, shown) = (shown(call, old), shown(call, new));
                writer.update(live, sent.as_ref(), &old, &shown)
            }
        };
        managers.put(new);
    }

    /// `PATCH` with a configuration; an object that is not there is created.
    pub(super) async fn apply(&self, call: Call) -> Result<Reply, Status> {
        let (config, warnings) = configuration(&call)?;
        let named = config.revision().filter(|revision| revision.0 != 0);
        let warned = Mutex::new(Vec::new());
        let change = |old: &Old<'_>| {
            let (new, warnings) = self.applied(&call, Some(old), &config)?;
            if let Ok(mut warned) = warned.lock() {
                *warned = warnings;
            }
            Ok(Wanted { new, expected: named })
        };
        let mut reply = self.apply_or_create(&call, &config, &change).await?;
        reply.warnings.extend(warnings);
        reply.warnings.extend(warned.into_inner().unwrap_or_default());
        Ok(reply)
    }

    async fn apply_or_create(
        &self,
        call: &Call,
        config: &Object,
        change: Change<'_>,
    ) -> Result<Reply, Status> {
        for attempt in 1.. {
            let missing = match self.modify(call, change).await {
                Err(status) if status.code == 404 && call.subresource.is_empty() => status,
                result => return result,
            };
            if self.store.get(&call.key()).is_some() {
                return Err(missing);
            }
            match self.create_applied(call, config).await {
                Err(status) if status.reason == "AlreadyExists" && attempt < APPEARANCES => {}
                result => return result,
            }
        }
        unreachable!("the loop only ends by returning")
    }

    /// The caller may patch; now they must also be allowed to create.
    async fn create_applied(&self, call: &Call, config: &Object) -> Result<Reply, Status> {
        self.authorize_or_ask(&Attributes {
            user: &call.identity,
            verb: "create",
            group: call.kind.group,
            version: &call.version,
            resource: call.kind.plural,
            subresource: "",
            namespace: &call.namespace,
            name: &call.name,
            path: "",
            field_selector: "",
        })
        .await?;
        if !config.uid().is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was \
                 found",
                config.uid()
            );
            return Err(Status::conflict(&call.resource(), &call.name, why));
        }
        if config.name().is_empty() {
            return Err(Status::bad_request(format!(
                "the name of the object ({} based on URL) was undeterminable: name must be provided",
                call.name
            )));
        }
        let (new, warnings) = self.applied(call, None, config)?;
        let mut reply = self.create_once(call, new).await?;
        reply.warnings.splice(0..0, warnings);
        Ok(reply)
    }

    /// The object under the configuration, with its managers; decoded as if it had been sent whole.
    pub(super) fn applied(
        &self,
        call: &Call,
        old: Option<&Old<'_>>,
        config: &Object,
    ) -> Result<(Object, Vec<String>), Status> {
        let (now, api_version) = (meta::now(), encode::api_version(call.kind.group, &call.version));
        let versions = Served(call);
        let writer = self
            .writer(call, &api_version, &now, &versions)
            .ok_or_else(|| Status::internal("a kind without a schema cannot be applied to"))?;
        let mut live = old.map(|old| shown(call, old)).unwrap_or_default();
        encode::stamp(&mut live, &call.kind, &call.version);
        let managers = old.map(Old::managers).unwrap_or_default();
        let applied = writer
            .apply(managers, &live, config, call.options.force)
            .map_err(|error| error.status())?;
        let body = Body::Value(applied.object.into_value());
        let (object, warnings) = self.decode_kind(&call.kind, &call.version, &body, None)?;
        let mut object = convert::take_in(call, object);
        super::write::settle_name(&mut object, &call.name)?;
        applied.managers.put(&mut object);
        Ok((object, warnings))
    }

    /// The new version as it was, if nothing but the time of a manager would change.
    pub(super) fn settle_times(old: &Old<'_>, new: &mut Object) {
        let managed = new.metadata().and_then(|metadata| metadata.get("managedFields"));
        if managed == old.managed() {
            return;
        }
        let (Some(managed), Some(before)) = (managed, old.managed()) else { return };
        let managers = Managers::trusted(managed.clone());
        if !managers.same_but_for_times(&Managers::trusted(before.clone())) {
            return;
        }
        let (mut was, before) = ((**old).clone(), before.clone());
        encode::strip(&mut was);
        let now = new.metadata_mut().remove("managedFields");
        let managed = if *new == was { Some(before) } else { now };
        managed.map(Managers::trusted).unwrap_or_default().put(new);
    }
}

/// The configuration in the body, and what is odd about it.
pub(crate) fn configuration(call: &Call) -> Result<(Object, Vec<String>), Status> {
    let (value, duplicate) = match &call.body {
        Body::Yaml(bytes) | Body::Json(bytes) => k8s::apply::parse(bytes)?,
        Body::Value(value) => (value.clone(), None),
        _ => return Err(Status::bad_request("the request has no body")),
    };
    let warnings = match (duplicate, call.options.field_validation.as_deref()) {
        (Some(why), Some("Strict")) => {
            return Err(Status::bad_request(format!(
                "error strict decoding YAML: error converting YAML to JSON: {why}"
            )));
        }
        // A header is one line: without the heading over all lines, as upstream has it.
        (Some(why), None | Some("" | "Warn")) => {
            let lines = why.lines().filter(|line| !line.starts_with("yaml: unmarshal errors"));
            lines.map(|line| line.trim().to_string()).collect()
        }
        _ => Vec::new(),
    };
    let config = Object::from_value(value).ok_or_else(|| {
        Status::bad_request("error decoding YAML: the configuration is not an object")
    })?;
    Ok((config, warnings))
}

/// An object in the call's version; nothing stays nothing.
fn shown(call: &Call, object: &Object) -> Object {
    if object.0.is_empty() { Object::default() } else { convert::show(call, object.clone()) }
}

/// What a client without a `fieldManager` is called: its `User-Agent` up to the first slash, without
/// what cannot be printed, as far as it fits (upstream's `prefixFromUserAgent`).
pub(crate) fn manager_of(user_agent: &str) -> String {
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars() {
        if !is_printable(c) {
            continue;
        }
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// `FieldManagerMaxLength`.
pub(crate) const MANAGER_BYTES_MAX: usize = 128;

/// Go's `unicode.IsPrint`, near enough: of spaces only the plain one.
pub(crate) fn is_printable(c: char) -> bool {
    c == ' '
        || !(c.is_control()
            || c.is_whitespace()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{feff}'))
}

/// What the pieces of this program are called, as upstream's are.
pub(crate) fn manager_of_user(user: &str) -> &str {
    match user {
        "system:apiserver" => "kube-apiserver",
        _ if user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ => user.strip_prefix("system:").unwrap_or(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_called_by_its_agent() {
        assert_eq!(manager_of("kubectl/v1.36.4 (linux/amd64) kubernetes/abc"), "kubectl");
        assert_eq!(manager_of("odd\u{7} one"), "odd one");
        assert_eq!(manager_of(&"é".repeat(100)).len(), MANAGER_BYTES_MAX);
        assert_eq!(manager_of(""), "");
        assert_eq!(manager_of_user("system:kube-scheduler"), "kube-scheduler");
    }
}
