//! A view for tests: the versions put into it, nothing else.

use crate::view::View;
use k8s::Object;
use raft_store::{Key, Revision, Stored};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

#[derive(Default)]
pub(crate) struct World(BTreeMap<Key, Arc<Stored>>);

impl World {
    pub(crate) fn put(&mut self, space: &str, object: Value) {
        let object = Object::from_value(object).expect("an object");
        let path = match object.namespace() {
            "" => object.name().to_string(),
            namespace => format!("{namespace}/{}", object.name()),
        };
        let revision = Revision(self.0.len() as u64 + 1);
        let body = serde_json::to_vec(&object).expect("JSON").into();
        let key = Key::new(space, path);
        self.0.insert(key.clone(), Arc::new(Stored::new(key, revision, revision, body)));
    }
}

impl View for World {
    fn stored(&self, space: &str, path: &str) -> Option<Arc<Stored>> {
        self.0.get(&Key::new(space, path)).cloned()
    }

    fn range(&self, space: &str, prefix: &str) -> Vec<Arc<Stored>> {
        let all = self.0.iter();
        let found = all.filter(|(key, _)| &*key.space == space && key.path.starts_with(prefix));
        found.map(|(_, stored)| stored.clone()).collect()
    }
}
