//! Stored objects of custom kinds as a version shows them, and back: pruned, defaulted and converted.
//! What is stored in the version asked for, as that version would write it, is served as it is.

use super::{
    CustomKind,
    definition::{Conversion, Definition, Version},
};
use crate::{admission::Clients, backend::Ways, encode, kind::Kind, memo};
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
    clients: Clients,
}

impl Converter {
    pub(crate) fn new(ways: Ways) -> Converter {
        Converter { clients: Clients::new(ways) }
    }

    /// The stored versions as `kind` shows them, in order; those of built-in kinds unchanged. A webhook
    /// is asked once for all.
    pub(crate) async fn served(
        &self,
        kind: &Kind,
        mut items: Vec<Arc<Stored>>,
    ) -> Result<Vec<Arc<Stored>>, Status> {
        let Some(custom) = kind.custom() else { return Ok(items) };
        let (definition, version) = (&custom.definition, custom.version());
        let mut others = Vec::new();
        for (index, stored) in items.iter_mut().enumerate() {
            if let Some(known) = memo::served(stored, kind.state(), version.name) {
                if let Some(known) = known {
                    *stored = known;
                }
                continue;
            }
            let mut object: Object = serde_json::from_slice(&stored.body).map_err(|error| {
                Status::internal(format!("a stored object is not JSON: {error}"))
            })?;
            let from = written_in(definition, &object)?;
            shape(&mut object, from);
            fill(&mut object, from);
            if from.name == version.name {
                *stored = keep(kind, version, stored, &object);
            } else {
                others.push((index, object));
            }
        }
        let (places, objects): (Vec<usize>, Vec<Object>) = others.into_iter().unzip();
        let converted = self.convert(definition, objects, version).await?;
        for (index, object) in places.into_iter().zip(converted) {
            items[index] = keep(kind, version, &items[index], &object);
        }
        Ok(items)
    }

    /// The bytes an object of `kind` is stored as: complete, in the storage version.
    pub(crate) async fn stored(&self, kind: &Kind, object: &Object) -> Result<Bytes, Status> {
        let Some(custom) = kind.custom() else { return Ok(encode::body(object)) };
        let definition = &custom.definition;
        let storage = &definition.versions[definition.storage];
        let mut object = object.clone();
        encode::stamp(&mut object, kind, custom.version().name);
        if storage.name != custom.version().name {
            let mut converted = self.convert(definition, vec![object], storage).await?;
            object = converted.pop().ok_or_else(|| Status::internal("nothing was converted"))?;
        }
        Ok(encode::body(&object))
    }

    /// As many objects as there were, in order.
    async fn convert(
        &self,
        definition: &Definition,
        mut objects: Vec<Object>,
        to: &Version,
    ) -> Result<Vec<Object>, Status> {
        let api_version = encode::api_version(definition.group, to.name);
        match &definition.conversion {
            Conversion::Webhook(webhook) if !objects.is_empty() => {
                objects = webhook.convert(&self.clients, definition, objects, &api_version).await?;
            }
            _ => {
                for object in &mut objects {
                    object.0.insert("apiVersion".into(), api_version.as_str().into());
                }
            }
        }
        objects.iter_mut().for_each(|object| shape(object, to));
        Ok(objects)
    }
}

/// What is served in place of `stored`, remembered for the next who asks.
fn keep(kind: &Kind, version: &Version, stored: &Arc<Stored>, object: &Object) -> Arc<Stored> {
    let body = encode::body(object);
    if body == stored.body {
        memo::keep_served(stored, kind.state(), version.name, None);
        return stored.clone();
    }
    let shown = Stored::new(stored.key.clone(), stored.revision, stored.created, body);
    let shown = Arc::new(shown);
    memo::keep_served(stored, kind.state(), version.name, Some(&shown));
    shown
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
