//! Stored objects of custom kinds as a version shows them, and back: pruned, defaulted and converted.
//! What is stored in the version asked for, as that version would write it, is served as it is.

use super::{
    CustomKind,
    definition::{Conversion, Definition, Version},
};
use crate::{encode, kind::Kind, memo, view::View};
use bytes::Bytes;
use k8s::{
    Object, Status,
    structural::{self, prune, prune_nulls},
};
use raft_store::Stored;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Brings objects from one version to another.
pub(crate) struct Converter {
    #[expect(dead_code, reason = "webhooks are looked up there")]
    pub(crate) view: Arc<dyn View>,
}

impl Converter {
    /// The stored versions as `kind` shows them, in order; those of built-in kinds unchanged.
    pub(crate) async fn served(
        &self,
        kind: &Kind,
        items: Vec<Arc<Stored>>,
    ) -> Result<Vec<Arc<Stored>>, Status> {
        let Some(custom) = kind.custom() else { return Ok(items) };
        let mut served = Vec::with_capacity(items.len());
        for stored in items {
            served.push(self.serve(kind, custom, stored).await?);
        }
        Ok(served)
    }

    async fn serve(
        &self,
        kind: &Kind,
        custom: &CustomKind,
        stored: Arc<Stored>,
    ) -> Result<Arc<Stored>, Status> {
        let version = custom.version();
        if let Some(known) = memo::served(&stored, kind.state(), version.name) {
            return Ok(known.unwrap_or(stored));
        }
        let mut object: Object = serde_json::from_slice(&stored.body)
            .map_err(|error| Status::internal(format!("a stored object is not JSON: {error}")))?;
        let definition = &custom.definition;
        let from = written_in(definition, &object)?;
        shape(&mut object, from);
        fill(&mut object, from);
        if from.name != version.name {
            object = self.convert(definition, object, version).await?;
        }
        let body = encode::body(&object);
        if body == stored.body {
            memo::keep_served(&stored, kind.state(), version.name, None);
            return Ok(stored);
        }
        let shown = Stored::new(stored.key.clone(), stored.revision, stored.created, body);
        let shown = Arc::new(shown);
        memo::keep_served(&stored, kind.state(), version.name, Some(&shown));
        Ok(shown)
    }

    /// The bytes an object of `kind` is stored as: complete, in the storage version.
    pub(crate) async fn stored(&self, kind: &Kind, object: &Object) -> Result<Bytes, Status> {
        let Some(custom) = kind.custom() else { return Ok(encode::body(object)) };
        let definition = &custom.definition;
        let storage = &definition.versions[definition.storage];
        let mut object = object.clone();
        encode::stamp(&mut object, kind, custom.version().name);
        if storage.name != custom.version().name {
            object = self.convert(definition, object, storage).await?;
        }
        Ok(encode::body(&object))
    }

    async fn convert(
        &self,
        definition: &Definition,
        mut object: Object,
        to: &Version,
    ) -> Result<Object, Status> {
        match &definition.conversion {
            Conversion::None => {}
            Conversion::Webhook(_) => {
                let (group, kind) = (definition.group, definition.kind);
                return Err(Status::not_implemented(format!(
                    "conversion of {kind}.{group} by webhook is not implemented yet"
                )));
            }
        }
        let api_version = encode::api_version(definition.group, to.name);
        object.0.insert("apiVersion".into(), api_version.into());
        shape(&mut object, to);
        Ok(object)
    }
}

fn written_in<'a>(definition: &'a Definition, object: &Object) -> Result<&'a Version, Status> {
    let api_version = object.api_version();
    definition.version(api_version).ok_or_else(|| {
        Status::internal(format!(
            "request to convert CR from an invalid group/version: {api_version}"
        ))
    })
}

/// What the schema does not know goes.
fn shape(object: &mut Object, version: &Version) {
    with_value(object, |value| {
        prune(value, &version.node, true);
        prune_nulls(value, Some(&version.node));
    });
}

/// What it has defaults for comes.
fn fill(object: &mut Object, version: &Version) {
    with_value(object, |value| structural::default(value, &version.node));
}

impl CustomKind {
    /// Defaults of what a write left out, once more after admission.
    pub(crate) fn fill_in(&self, object: &mut Object) {
        fill(object, self.version());
    }
}

/// Metadata is no business of the schema's, whatever it says of it.
fn with_value(object: &mut Object, change: impl FnOnce(&mut Value)) {
    let metadata = object.0.remove("metadata").unwrap_or_else(|| Value::Object(Map::new()));
    let mut value = Value::Object(std::mem::take(&mut object.0));
    change(&mut value);
    *object = Object::from_value(value).unwrap_or_default();
    object.0.insert("metadata".into(), metadata);
}
