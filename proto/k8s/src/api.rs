//! What a client asks and what it is told, as values: one trait for the in-process server and for
//! HTTPS, so that controllers and agents cannot tell which they talk to.

use crate::{Object, Revision, Status};
use futures::{future::BoxFuture, stream::BoxStream};
use serde_json::Value;
use std::{borrow::Cow, fmt, sync::Arc};

/// Group, version and plural name of an API resource, such as `apps/v1 deployments`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
}

impl Resource {
    pub const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Resource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
        }
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// `pods` or `deployments.apps`, as upstream prints it.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plural)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// The media types of `PATCH` (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    StrategicMerge,
    Apply,
}

/// The verbs of the API, as RBAC names them; `watch` is [`Api::watch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch(PatchType),
    Delete,
    DeleteCollection,
}

/// The query parameters and delete options a request may carry; absent means upstream's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub limit: Option<u64>,
    pub continue_token: Option<String>,
    /// Uninterpreted, as the client sent it: `""`, `"0"` or a revision.
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
    pub dry_run: bool,
    pub field_manager: Option<String>,
    /// `fieldValidation`: `Strict` (default for HTTP writes is `Warn`), `Warn`, `Ignore`.
    pub field_validation: Option<String>,
    pub force: bool,
    /// `Foreground`, `Background` or `Orphan`.
    pub propagation_policy: Option<String>,
    pub grace_period_seconds: Option<i64>,
    pub precondition_uid: Option<String>,
    pub precondition_revision: Option<Revision>,
}

/// One call. `body` is the object for create and update, the patch for patch (a JSON array for
/// [`PatchType::Json`]), the options kind's body for subresources such as `eviction`.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub verb: Verb,
    pub resource: Resource,
    /// Empty for cluster-scoped resources and for lists across namespaces.
    pub namespace: String,
    /// Empty for collections and for create.
    pub name: String,
    /// Empty, or `status`, `scale`, `binding`, `eviction`, …
    pub subresource: Cow<'static, str>,
    pub body: Option<Value>,
    pub options: Options,
    /// Raft term the caller believes it leads in; apply refuses the write in any other term.
    /// `None`: the caller claims no leadership.
    pub fence: Option<u64>,
}

impl Request {
    pub fn new(verb: Verb, resource: Resource, namespace: &str, name: &str) -> Request {
        Request {
            verb,
            resource,
            namespace: namespace.to_string(),
            name: name.to_string(),
            subresource: Cow::Borrowed(""),
            body: None,
            options: Options::default(),
            fence: None,
        }
    }

    pub fn get(resource: Resource, namespace: &str, name: &str) -> Request {
        Request::new(Verb::Get, resource, namespace, name)
    }

    pub fn list(resource: Resource, namespace: &str) -> Request {
        Request::new(Verb::List, resource, namespace, "")
    }

    pub fn create(resource: Resource, object: Object) -> Request {
        let request = Request::new(Verb::Create, resource, object.namespace(), "");
        request.with_body(object.into_value())
    }

    /// Replaces the object; conflicts if `metadata.resourceVersion` is set and not current.
    pub fn update(resource: Resource, object: Object) -> Request {
        let request = Request::new(Verb::Update, resource, object.namespace(), object.name());
        request.with_body(object.into_value())
    }

    pub fn patch(
        resource: Resource,
        namespace: &str,
        name: &str,
        kind: PatchType,
        patch: Value,
    ) -> Request {
        Request::new(Verb::Patch(kind), resource, namespace, name).with_body(patch)
    }

    pub fn delete(resource: Resource, namespace: &str, name: &str) -> Request {
        Request::new(Verb::Delete, resource, namespace, name)
    }

    pub fn subresource(mut self, name: &'static str) -> Request {
        self.subresource = Cow::Borrowed(name);
        self
    }

    pub fn with_body(mut self, body: Value) -> Request {
        self.body = Some(body);
        self
    }
}

/// A watch of one resource, everywhere or in one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchRequest {
    pub resource: Resource,
    /// Empty for all namespaces.
    pub namespace: String,
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// `None`: the whole present state as `Added` events, then a bookmark with
    /// `initial_events_end`, then changes (KEP-3157). `Some(r)`: every change after `r`.
    pub after: Option<Revision>,
}

/// One event of a watch. Revisions in a stream never go back.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last state, at the revision of the deletion.
    Deleted(Arc<Object>),
    /// Every change up to `revision` has been delivered.
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
}

/// Ends with an error ([`Status::is_expired`]: list again) or when the server closes it (resume
/// after the last revision seen).
pub type Events = BoxStream<'static, Result<WatchEvent, Status>>;

/// A Kubernetes API server under one identity.
///
/// Promises: `call` returns `Ok` only for a committed write; `get` and `list` without a resource
/// version are linearizable; for every watch and every change after its start, the event is
/// delivered exactly once and in revision order.
pub trait Api: Send + Sync + 'static {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>>;

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>>;

    /// Several independent calls at once; a server may commit them as one log entry.
    fn batch(&self, requests: Vec<Request>) -> BoxFuture<'_, Vec<Result<Object, Status>>> {
        Box::pin(futures::future::join_all(requests.into_iter().map(|request| self.call(request))))
    }
}
