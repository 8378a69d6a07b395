//! One state of a CustomResourceDefinition, compiled.

use super::{
    CLEANUP,
    columns::Columns,
    intern,
    rules::{self, Rules},
    webhook::Webhook,
};
use crate::{
    kinds::{KindDef, Subresource, Verbs, common},
    memo,
};
use k8s::{
    Object,
    apply::Scope,
    schema::{Schema, TypeId},
    structural::{FieldPath, Node},
};
use raft_store::Stored;
use serde_json::Value;
use std::sync::Arc;

/// A definition as it is in force. Only established ones are served.
pub(crate) struct Definition {
    /// Of the definition's object: no two states share one.
    pub(crate) revision: u64,
    pub(crate) kind: &'static str,
    pub(crate) group: &'static str,
    pub(crate) versions: Vec<Version>,
    /// Which of them objects are stored in.
    pub(crate) storage: usize,
    pub(crate) conversion: Conversion,
    /// The definition is being deleted: nothing new may be made.
    pub(crate) terminating: bool,
}

/// How objects of one version become those of another.
pub(crate) enum Conversion {
    /// All versions look the same but for `apiVersion`.
    None,
    /// `spec.conversion.webhook`
    Webhook(Webhook),
}

/// One version of a kind, served or not.
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) served: bool,
    pub(crate) node: Node,
    /// The same for whoever walks schemas of all kinds alike.
    pub(crate) schema: (Schema, TypeId),
    /// As it was written.
    pub(crate) source: Value,
    /// `x-kubernetes-validations`
    pub(crate) rules: Option<Rules>,
    pub(crate) columns: Columns,
    /// With their names: `spec.color`.
    pub(crate) selectable: Vec<(Box<str>, FieldPath)>,
    /// What is said to whoever uses it, if it is deprecated.
    pub(crate) warning: Option<String>,
    pub(crate) scale: Option<Scale>,
    status: bool,
}

/// The simple JSON paths of the scale subresource.
#[derive(Clone)]
pub(crate) struct Scale {
    pub(crate) spec_replicas: String,
    pub(crate) status_replicas: String,
    pub(crate) selector: String,
}

/// A served version as a kind.
pub(crate) struct CustomKind {
    pub(crate) def: KindDef,
    pub(crate) definition: Arc<Definition>,
    index: usize,
}

impl CustomKind {
    /// True for the version that objects are stored in.
    pub(crate) fn is_storage(&self) -> bool {
        self.index == self.definition.storage
    }

    pub(crate) fn version(&self) -> &Version {
        &self.definition.versions[self.index]
    }
}

/// The kinds a stored definition makes, one per served version; none until it is established.
pub(crate) fn kinds(stored: &Stored) -> Vec<CustomKind> {
    let compiled = memo::derived(stored, |object| {
        let established = condition(object, "Established") == Some("True");
        established.then(|| compile(object, stored.revision.0)).flatten()
    });
    let Some((definition, defs)) = &*compiled else { return Vec::new() };
    let kind = |(index, def): &(usize, KindDef)| CustomKind {
        def: def.clone(),
        definition: definition.clone(),
        index: *index,
    };
    defs.iter().map(kind).collect()
}

/// `status` of a condition.
pub(crate) fn condition<'a>(object: &'a Object, ty: &str) -> Option<&'a str> {
    let conditions = object.at("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == ty)?;
    found["status"].as_str()
}

type Compiled = (Arc<Definition>, Vec<(usize, KindDef)>);

/// `None` for what no valid definition says.
fn compile(object: &Object, revision: u64) -> Option<Compiled> {
    let group = intern::text(object.str_at("/spec/group"));
    let kind = intern::text(object.str_at("/status/acceptedNames/kind"));
    let namespaced = object.str_at("/spec/scope") == "Namespaced";
    let sources = object.at("/spec/versions")?.as_array()?;
    let versions: Vec<Version> =
        sources.iter().map(|source| version(group, kind, source, sources)).collect();
    let storage = sources.iter().position(|source| source["storage"] == true)?;
    let served = versions.iter().enumerate().filter(|(_, version)| version.served);
    let defs =
        served.map(|(index, version)| (index, def(object, group, kind, namespaced, version)));
    let defs = defs.collect();
    let webhook = object.str_at("/spec/conversion/strategy") == "Webhook";
    let conversion = match object.at("/spec/conversion/webhook") {
        Some(webhook_config) if webhook => Conversion::Webhook(Webhook::read(webhook_config)),
        _ => Conversion::None,
    };
    let terminating = object.deletion_timestamp().is_some()
        && object.finalizers().any(|finalizer| finalizer == CLEANUP);
    let definition =
        Definition { revision, kind, group, versions, storage, conversion, terminating };
    Some((Arc::new(definition), defs))
}

fn version(group: &str, kind: &str, source: &Value, all: &[Value]) -> Version {
    let name = intern::text(source["name"].as_str().unwrap_or_default());
    let schema = source.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
    let node = Node::read(&schema);
    let selectable = source["selectableFields"].as_array().into_iter().flatten();
    let selectable = selectable.filter_map(|field| {
        let path = FieldPath::parse(field["jsonPath"].as_str()?, false).ok()?;
        Some((path.dotted().into(), path))
    });
    let subresources = &source["subresources"];
    let path = |field: &str| subresources["scale"][field].as_str().unwrap_or_default().to_string();
    let scale = subresources["scale"].is_object().then(|| Scale {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    });
    Version {
        name,
        served: source["served"] == true,
        schema: Schema::custom(&format!("{group}.{name}.{kind}"), &node),
        rules: rules::compile(&schema, &node, "").0,
        node,
        source: schema,
        columns: Columns::read(&source["additionalPrinterColumns"]),
        selectable: selectable.collect(),
        warning: deprecation(group, kind, source, all),
        scale,
        status: subresources["status"].is_object(),
    }
}

/// `example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget`
fn deprecation(group: &str, kind: &str, source: &Value, all: &[Value]) -> Option<String> {
    if source["deprecated"] != true {
        return None;
    }
    if let Some(own) = source["deprecationWarning"].as_str() {
        return Some(own.to_string());
    }
    let name = source["name"].as_str().unwrap_or_default();
    let rank = |version: &Value| crate::catalog::rank(version["name"].as_str().unwrap_or_default());
    let better = all.iter().filter(|version| {
        version["served"] == true && version["deprecated"] != true && rank(version) > rank(source)
    });
    let text = format!("{group}/{name} {kind} is deprecated");
    match better.max_by_key(|version| rank(version)).and_then(|version| version["name"].as_str()) {
        Some(better) => Some(format!("{text}; use {group}/{better} {kind}")),
        None => Some(text),
    }
}

fn def(
    object: &Object,
    group: &'static str,
    kind: &'static str,
    namespaced: bool,
    version: &Version,
) -> KindDef {
    let name = |field: &str| {
        let accepted = object.str_at(&format!("/status/acceptedNames/{field}"));
        intern::text(accepted)
    };
    let names = |field: &str| {
        let list = object.at(&format!("/status/acceptedNames/{field}"));
        let list = list.and_then(Value::as_array).into_iter().flatten();
        intern::list(list.filter_map(Value::as_str))
    };
    let mut subresources = Vec::new();
    if version.status {
        subresources.push(Subresource::Status);
    }
    if let Some(scale) = &version.scale {
        let pointer = |path: &str| intern::text(&path.replace('.', "/"));
        subresources.push(Subresource::Scale {
            spec_replicas: pointer(&scale.spec_replicas),
            status_replicas: pointer(&scale.status_replicas),
            selector: pointer(&scale.selector),
        });
    }
    let base = KindDef {
        group,
        versions: intern::list([version.name].into_iter()),
        kind,
        plural: name("plural"),
        singular: name("singular"),
        list_kind: name("listKind"),
        short_names: names("shortNames"),
        categories: names("categories"),
        namespaced,
        verbs: Verbs::All,
        subresources: intern::subresources(subresources),
        columns: &[],
        generation: true,
        unconditional_update: false,
        status_scope: Scope::STATUS_ALONE,
        ..KindDef::BASE
    };
    if version.status {
        return KindDef {
            prepare_create: common::drop_status,
            prepare_update: common::keep_status,
            ..base
        };
    }
    base
}

impl Version {
    pub(crate) fn selectable_at(&self, path: &str) -> Option<usize> {
        self.selectable.iter().position(|(name, _)| **name == *path)
    }

    pub(crate) fn selectable_values(&self, object: &Object) -> Box<[Box<str>]> {
        let value = |path: &FieldPath| {
            let mut steps = path.steps.iter();
            let first = object.0.get(&**steps.next()?)?;
            steps.try_fold(first, |at, step| at.as_object()?.get(&**step))
        };
        let text = |value: Option<&Value>| match value {
            None | Some(Value::Null) => String::new(),
            Some(value) => k8s::text::go_text(value),
        };
        self.selectable.iter().map(|(_, path)| text(value(path)).into()).collect()
    }
}

impl Definition {
    /// The served versions that differ in `apiVersion` alone.
    pub(crate) fn alike(&self) -> Vec<&'static str> {
        match self.conversion {
            Conversion::None => {
                let served = self.versions.iter().filter(|version| version.served);
                served.map(|version| version.name).collect()
            }
            Conversion::Webhook(_) => Vec::new(),
        }
    }

    /// The version of an `apiVersion`.
    pub(crate) fn version(&self, api_version: &str) -> Option<&Version> {
        let (group, name) = api_version.rsplit_once('/')?;
        self.versions.iter().find(|version| group == self.group && version.name == name)
    }
}
