//! Reading the applied state without waiting: what admission and authorization look things up in.

use crate::memo;
use k8s::Object;
use raft_store::Stored;
use std::sync::Arc;

/// This member's applied state. Sync and without IO; may be behind the newest commit (the pipeline
/// asks again after a barrier before it refuses anything because of what was seen here).
pub trait View: Send + Sync {
    /// `space` is `plural` or `plural.group`'s [`crate::kinds::KindDef::space`]; `path` is
    /// `namespace/name` or `name`.
    fn stored(&self, space: &str, path: &str) -> Option<Arc<Stored>>;

    /// Everything in `space` whose path begins with `prefix` (`""` or `namespace/`), in path order.
    fn range(&self, space: &str, prefix: &str) -> Vec<Arc<Stored>>;

    /// The object parsed, with `metadata.resourceVersion`, without `apiVersion` and `kind`.
    fn object(&self, space: &str, path: &str) -> Option<Arc<Object>> {
        self.stored(space, path).map(|stored| memo::object(&stored))
    }
}

impl View for raft_store::Store {
    fn stored(&self, space: &str, path: &str) -> Option<Arc<Stored>> {
        self.get(&raft_store::Key::new(space, path))
    }

    fn range(&self, space: &str, prefix: &str) -> Vec<Arc<Stored>> {
        raft_store::Store::range(self, space, prefix, None, None).items
    }
}
