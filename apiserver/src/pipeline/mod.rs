//! The one path of every verb and kind: values in, values out. HTTP and in-process callers meet
//! here; nothing below knows which of the two it serves.

pub(crate) mod convert;
mod delete;
pub(crate) mod manage;
pub(crate) mod meta;
mod read;
mod selection;
pub(crate) mod watch;
mod write;

pub(crate) use delete::Along;
pub(crate) use manage::{Old, configuration};
pub(crate) use read::List;
pub(crate) use selection::Selection;
pub(crate) use write::{Change, Wanted, apply_patch};

use crate::{
    Config, admission,
    aggregator::Aggregator,
    authz::{Attributes, Authorizer, Decision},
    backend::Ways,
    catalog::{self, Catalog, Catalogs},
    custom::{self, Converter},
    encode, errors,
    identity::Identity,
    kind::Kind,
    kinds::{KindDef, Subresource},
    metrics::Metrics,
    subresources,
    view::View,
};
use bytes::Bytes;
use k8s::{Object, Options, PatchType, Resource, Status, Verb, schema::Schema};
use raft_store::{Key, Store, Stored, Term};
use serde_json::Value;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// Everything a request needs, shared by all of them.
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) view: Arc<dyn View>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// Of the bodies that are no objects of a kind: a `Scale`, a `Binding`. Those of a kind: `Kind::schema`.
    pub(crate) schema: &'static Schema,
    pub(crate) catalogs: Arc<Catalogs>,
    pub(crate) converter: Arc<Converter>,
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    pub(crate) machine: admission::Machine,
    pub(crate) ways: Ways,
    /// Streams between clients and nodes, which outlive their requests.
    pub(crate) tasks: TaskTracker,
    /// What is known of API groups that are served elsewhere.
    pub(crate) aggregator: Aggregator,
    pub(crate) flow: crate::flow::Flow,
    /// The process is about to end: it says that it is not ready.
    pub(crate) stopping: std::sync::atomic::AtomicBool,
    pub(crate) boot: crate::boot::Boot,
    pub(crate) heartbeats: crate::heartbeats::Heartbeats,
    pub(crate) page_tokens: crate::page_tokens::PageTokens,
    pub(crate) followers: crate::exchange::Followers,
}

/// One request for one kind, routed and authorized.
pub(crate) struct Call {
    pub(crate) kind: Kind,
    /// The version it came by; the answer goes out in the same.
    pub(crate) version: String,
    pub(crate) verb: Verb,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) body: Body,
    pub(crate) options: Options,
    pub(crate) fence: Option<u64>,
    pub(crate) identity: Arc<Identity>,
    /// What admission says of it besides yes and no.
    pub(crate) notes: Arc<admission::Notes>,
}

/// What came with a request. Parsed once, against the type that belongs there.
pub(crate) enum Body {
    None,
    Json(Bytes),
    Yaml(Bytes),
    Protobuf(Bytes),
    /// From inside the process, or a patch.
    Value(Value),
}

/// The answer, before anyone chose a format for it.
pub(crate) struct Reply {
    pub(crate) what: What,
    pub(crate) created: bool,
    /// For `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

pub(crate) enum What {
    /// A version as it is in the store.
    Stored(Arc<Stored>),
    /// An object of the call's kind with its resource version, without `apiVersion` and `kind`.
    Object(Object),
    /// Complete as it is: a `Scale`, a `Status` of success, a review.
    Other(Object),
    List(List),
}

impl Reply {
    pub(crate) fn new(what: What) -> Reply {
        Reply { what, created: false, warnings: Vec::new() }
    }

    /// The answer as an object, for a caller in the process.
    pub(crate) fn into_object(self, kind: &KindDef, version: &str) -> Object {
        let mut object = match self.what {
            What::Stored(stored) => crate::memo::parse(&stored),
            What::Object(object) => object,
            What::Other(object) => return object,
            What::List(list) => return list.into_object(kind, version),
        };
        encode::stamp(&mut object, kind, version);
        object
    }
}

impl Call {
    /// A write of the server itself, refused once the term of its leadership has ended. Whole but for
    /// the name, namespace and subresource, where it has them.
    pub(crate) fn own(kind: Kind, verb: Verb, body: Body, term: Term) -> Call {
        Call {
            version: kind.versions[0].to_string(),
            kind,
            verb,
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            body,
            options: Options::default(),
            fence: Some(term.0),
            identity: Arc::new(Identity::server()),
            notes: Arc::default(),
        }
    }

    pub(crate) fn resource(&self) -> Resource {
        catalog::resource(&self.kind, &self.version)
    }

    /// Where the object lives; for a nameless call this is the prefix of its collection.
    pub(crate) fn key(&self) -> Key {
        key(&self.kind, &self.namespace, &self.name)
    }

    /// True if the client wants to know what would happen.
    pub(crate) fn dry_run(&self) -> bool {
        self.options.dry_run
    }

    fn not_found(&self) -> Status {
        Status::not_found(&self.resource(), &self.name)
    }
}

/// `namespace/name` or `name` in the kind's space.
pub(crate) fn key(kind: &KindDef, namespace: &str, name: &str) -> Key {
    Key::new(&*kind.space(), path(kind, namespace, name))
}

fn path(kind: &KindDef, namespace: &str, name: &str) -> String {
    if kind.namespaced { format!("{namespace}/{name}") } else { name.to_string() }
}

/// The verb as RBAC names it.
pub(crate) fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::List => "list",
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Patch(_) => "patch",
        Verb::Delete => "delete",
        Verb::DeleteCollection => "deletecollection",
    }
}

impl Core {
    /// What is served now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.catalogs.current()
    }

    /// Answers one call, in the version it came by. The caller has been authorized. What admission
    /// warns of goes with the answer; with a refusal it stays in the call's notes.
    pub(crate) async fn call(&self, call: Call) -> Result<Reply, Status> {
        let (kind, version) = (call.kind.clone(), call.version.clone());
        let notes = call.notes.clone();
        let mut reply = self.answer(call).await?;
        reply.warnings.extend(kind.custom().and_then(|custom| custom.version().warning.clone()));
        reply.warnings.extend(notes.take_warnings());
        Ok(convert::answer(&kind, &version, reply))
    }

    async fn answer(&self, call: Call) -> Result<Reply, Status> {
        let unknown = !call.subresource.is_empty()
            && catalog::subresource(&call.kind, &call.subresource).is_none();
        if unknown {
            let why = "the server could not find the requested resource";
            return Err(Status::new(404, "NotFound", why));
        }
        if !self.serves(&call) {
            return Err(Status::method_unknown());
        }
        if call.kind.is_custom() && call.verb == Verb::Patch(PatchType::StrategicMerge) {
            return Err(custom::unsupported_patch());
        }
        match catalog::subresource(&call.kind, &call.subresource) {
            None => {}
            Some(Subresource::Status) if call.verb == Verb::Get => {}
            Some(Subresource::Status) => return self.update_status(call).await,
            Some(Subresource::Scale { .. }) => return subresources::scale::call(self, call).await,
            Some(Subresource::Named { .. }) => return subresources::call(self, call).await,
        }
        match call.verb {
            Verb::Get => self.get(&call).await,
            Verb::List => self.list(&call).await,
            Verb::Create if catalog::verbs(&call.kind) == ["create"] => {
                subresources::review::call(self, call).await
            }
            Verb::Create => self.create(call).await,
            Verb::Update => self.update(call).await,
            Verb::Patch(PatchType::Apply) => self.apply(call).await,
            Verb::Patch(patch) => self.patch(call, patch).await,
            Verb::Delete => self.delete(&call).await,
            Verb::DeleteCollection => self.delete_collection(call).await,
        }
    }

    fn serves(&self, call: &Call) -> bool {
        let verbs = match call.subresource.as_str() {
            "" => catalog::verbs(&call.kind),
            name => match catalog::subresource(&call.kind, name) {
                Some(subresource) => catalog::subresource_verbs(subresource),
                None => return false,
            },
        };
        verbs.contains(&verb_name(call.verb))
    }

    /// `Err` is the 403 upstream sends.
    pub(crate) fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let reason = match self.authorizer.authorize(attributes) {
            Decision::Allow => return Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
        };
        Err(forbidden(attributes, &reason))
    }

    /// The same, and what nobody here allows is put to the webhook, if there is one.
    pub(crate) async fn authorize_or_ask(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        match self.ask(attributes).await {
            Decision::Allow => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(forbidden(attributes, &reason))
            }
        }
    }

    /// What everybody who is asked says, one after the other.
    pub(crate) async fn ask(&self, attributes: &Attributes<'_>) -> Decision {
        match (self.authorizer.authorize(attributes), &self.config.access_webhook) {
            (Decision::NoOpinion { reason }, Some(webhook)) => {
                match webhook.authorize(attributes).await {
                    Decision::NoOpinion { reason: theirs } if theirs.is_empty() => {
                        Decision::NoOpinion { reason }
                    }
                    decided => decided,
                }
            }
            (decided, _) => decided,
        }
    }

    /// The object a write brought, checked against `wanted`, and what to warn of.
    pub(crate) fn decode(
        &self,
        wanted: &Type<'_>,
        body: &Body,
        validation: Option<&str>,
    ) -> Result<(Object, Vec<String>), Status> {
        let ty = self
            .schema
            .get(wanted.schema)
            .ok_or_else(|| Status::internal(format!("no type {} in the schema", wanted.schema)))?;
        let (decoded, bytes) = match body {
            Body::None => return Err(Status::bad_request("the request has no body")),
            Body::Json(bytes) => (k8s::decode::json(self.schema, ty, bytes), &bytes[..]),
            Body::Yaml(bytes) => (k8s::decode::yaml(self.schema, ty, bytes), &bytes[..]),
            Body::Protobuf(bytes) => (k8s::decode::protobuf(self.schema, ty, bytes), &bytes[..]),
            Body::Value(value) => (k8s::decode::value(self.schema, ty, value), &[][..]),
        };
        let decoded = decoded.map_err(|error| {
            let head = match body {
                Body::Protobuf(_) => k8s::protobuf::head(bytes),
                _ => k8s::decode::head(bytes).unwrap_or_default(),
            };
            error.status(&wanted.head(&head.api_version, &head.kind), wanted.kind, bytes)
        })?;
        let object = &decoded.object;
        wanted.check(object)?;
        let head = wanted.head(object.api_version(), object.kind());
        match validation {
            Some("Ignore") => Ok((decoded.object, Vec::new())),
            Some("Strict") => match decoded.strict_status(&head, wanted.kind) {
                Some(status) => Err(status),
                None => Ok((decoded.object, Vec::new())),
            },
            _ => Ok((decoded.object, decoded.strict)),
        }
    }

    /// The same for what a patch made of an object.
    pub(crate) fn decode_patched(
        &self,
        wanted: &Type<'_>,
        kind: PatchType,
        patched: &Value,
        patch: &Value,
        validation: Option<&str>,
    ) -> Result<(Object, Vec<String>), Status> {
        let ty = self
            .schema
            .get(wanted.schema)
            .ok_or_else(|| Status::internal(format!("no type {} in the schema", wanted.schema)))?;
        let strict = validation == Some("Strict");
        let decoded = k8s::patch::decode(self.schema, ty, kind, patched, patch, strict)?;
        wanted.check(&decoded.object)?;
        let silent = validation == Some("Ignore");
        Ok((decoded.object, if silent { Vec::new() } else { decoded.strict }))
    }

    /// The request as admission sees it.
    pub(crate) fn admission<'a>(
        &'a self,
        call: &'a Call,
        operation: admission::Operation,
        old: Option<&'a Object>,
    ) -> admission::Cx<'a> {
        admission::Cx {
            operation,
            kind: &call.kind,
            version: &call.version,
            namespace: &call.namespace,
            name: &call.name,
            subresource: &call.subresource,
            identity: &call.identity,
            old,
            view: &*self.view,
            authorizer: &*self.authorizer,
            config: &self.config.admission,
            options: &call.options,
            dry_run: call.dry_run(),
            notes: &call.notes,
            machine: &self.machine,
            reader: self,
        }
    }

    /// Afterwards this member has applied all that was acknowledged before.
    pub(crate) async fn barrier(&self) -> Result<(), Status> {
        self.store.barrier().await.map(|_| ()).map_err(errors::status)
    }
}

impl admission::Reader for Core {
    fn read(&self, kind: &Kind, version: &str, document: Value) -> Result<Object, Status> {
        let (mut object, _) =
            self.decode_kind(kind, version, &Body::Value(document), Some("Ignore"))?;
        encode::strip(&mut object);
        let mut object = convert::stored(kind, version, object);
        write::fill_in(kind, &mut object);
        Ok(object)
    }
}

/// What the body of a request must be.
pub(crate) struct Type<'a> {
    /// In the schema table.
    pub(crate) schema: &'a str,
    pub(crate) api_version: String,
    pub(crate) kind: &'a str,
}

impl<'a> Type<'a> {
    pub(crate) fn of(kind: &'a KindDef, version: &str) -> Type<'a> {
        let api_version = encode::api_version(kind.group, version);
        Type { schema: kind.schema_of(version), api_version, kind: kind.kind }
    }

    /// What the body says it is; where it says nothing, what it must be.
    pub(crate) fn head(&self, api_version: &str, kind: &str) -> k8s::decode::Head {
        let or = |said: &str, wanted: &str| {
            if said.is_empty() { wanted.to_string() } else { said.to_string() }
        };
        k8s::decode::Head::new(or(api_version, &self.api_version), or(kind, self.kind))
    }

    /// An object may leave its type out, but not name another.
    pub(crate) fn check(&self, object: &Object) -> Result<(), Status> {
        let (sent_version, sent_kind) = (object.api_version(), object.kind());
        if !sent_kind.is_empty() && sent_kind != self.kind {
            let why = format!("converting ({sent_kind}) to ({}): unknown conversion", self.kind);
            let head = self.head(sent_version, sent_kind);
            return Err(head.cannot_be_handled_as(self.kind, why));
        }
        if !sent_version.is_empty() && sent_version != self.api_version {
            return Err(Status::bad_request(format!(
                "the API version in the data ({sent_version}) does not match the expected API \
                 version ({})",
                self.api_version
            )));
        }
        Ok(())
    }
}

/// The refusal in upstream's words.
fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let user = &attributes.user.user;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !attributes.path.is_empty() {
        let (verb, path) = (attributes.verb, attributes.path);
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"{because}");
        return Status::new(403, "Forbidden", message);
    }
    let resource = match attributes.subresource {
        "" => attributes.resource.to_string(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let place = match (attributes.namespace, attributes.resource) {
        ("", _) | (_, "namespaces") => "at the cluster scope".to_string(),
        (namespace, _) => format!("in the namespace \"{namespace}\""),
    };
    let (verb, group) = (attributes.verb, attributes.group);
    let why = format!(
        "User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" \
         {place}{because}"
    );
    let resource = Resource {
        group: group.to_string().into(),
        version: attributes.version.to_string().into(),
        plural: attributes.resource.to_string().into(),
    };
    Status::forbidden(&resource, attributes.name, why)
}
