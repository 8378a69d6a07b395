//! The decoders of crate k8s. A target is a name, by which its corpus is found, and a function.

use k8s::{
    Object,
    apply::{self, AnyKind, Managers, OneVersion, Scope, Write},
    decode, patch, protobuf,
    quantity::Quantity,
    schema::{Schema, TypeId},
    selector::{FieldSelector, LabelSelector},
    structural::{self, Node},
    yaml,
};
use serde_json::{Value, json};

/// A name, and what runs under it.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Sorted; adding one is one word here, one `[[bin]]` in `fuzz/Cargo.toml` and a corpus.
pub(crate) const TARGETS: &[Target] = &[
    ("apply", apply),
    ("crd_schema", crd_schema),
    ("field_selector", field_selector),
    ("json", json),
    ("json_patch", json_patch),
    ("label_selector", label_selector),
    ("merge_patch", merge_patch),
    ("protobuf", protobuf),
    ("quantity", quantity),
    ("strategic_patch", strategic_patch),
    ("yaml", yaml),
];

fn ty(name: &str) -> TypeId {
    Schema::built_in().get(name).expect("a built-in type")
}

/// Every type of body a decoder has ever got wrong, or nearly.
const TYPES: &[&str] = &[
    "core.v1.Pod",
    "apiextensions.v1.CustomResourceDefinition",
    "core.v1.Service",
    "coordination.v1.Lease",
    "meta.v1.DeleteOptions",
];

fn json(data: &[u8]) {
    let schema = Schema::built_in();
    for name in TYPES {
        if let Ok(decoded) = decode::json(schema, ty(name), data) {
            understood_again(ty(name), &decoded.object.into_value());
        }
    }
}

/// An object that was decoded decodes to itself, and has a message that reads as itself.
fn understood_again(ty: TypeId, object: &Value) {
    let schema = Schema::built_in();
    let again = decode::value(schema, ty, object).expect("it was accepted once");
    assert_eq!(&again.object.clone().into_value(), object);
    assert!(again.strict.is_empty(), "{:?}", again.strict);
    let message = protobuf::write(schema, ty, &again.object.0);
    if let Ok(message) = message {
        let read = protobuf::read_message(schema, ty, &message).expect("own message");
        let rewritten = protobuf::write(schema, ty, &read).expect("it was written once");
        assert_eq!(message, rewritten);
    }
}

fn yaml(data: &[u8]) {
    if let Ok(value) = decode::yaml_to_value(data) {
        let mut text = Vec::new();
        yaml::write(&mut text, &value);
        assert_eq!(decode::yaml_to_value(&text), Ok(value), "{}", String::from_utf8_lossy(&text));
    }
    let _ = decode::yaml(Schema::built_in(), ty("core.v1.Pod"), data);
}

fn protobuf(data: &[u8]) {
    let schema = Schema::built_in();
    let _ = protobuf::head(data);
    for name in TYPES {
        let ty = ty(name);
        let _ = protobuf::read_message(schema, ty, data);
        if let Ok(decoded) = decode::protobuf(schema, ty, data) {
            understood_again(ty, &decoded.object.into_value());
        }
    }
}

/// Two JSON texts, one on each side of the first empty line.
fn pair(data: &[u8]) -> Option<(Value, Vec<u8>)> {
    let at = data.windows(2).position(|two| two == b"\n\n")?;
    Some((serde_json::from_slice(&data[..at]).ok()?, data[at + 2..].to_vec()))
}

fn json_patch(data: &[u8]) {
    let Some((document, patch)) = pair(data) else { return };
    if let Ok(patch) = patch::parse(k8s::PatchType::Json, &patch) {
        let _ = patch::json(document, &patch).map_err(|error| error.status());
    }
}

fn merge_patch(data: &[u8]) {
    let Some((document, patch)) = pair(data) else { return };
    let Ok(patch) = patch::parse(k8s::PatchType::Merge, &patch) else { return };
    if let Ok(once) = patch::merge(document, &patch) {
        assert_eq!(patch::merge(once.clone(), &patch).ok(), Some(once), "a merge is idempotent");
    }
}

fn strategic_patch(data: &[u8]) {
    let Some((document, patch)) = pair(data) else { return };
    let Ok(patch) = patch::parse(k8s::PatchType::StrategicMerge, &patch) else { return };
    let schema = Schema::built_in();
    for name in TYPES {
        let _ = patch::strategic(schema, ty(name), document.clone(), &patch);
    }
}

/// A schema of a CustomResourceDefinition, and an object under it: what passes the checks can be
/// pruned, defaulted and validated by, and the first two change nothing the second time.
fn crd_schema(data: &[u8]) {
    let Some((schema, object)) = pair(data) else { return };
    let Ok(mut object) = serde_json::from_slice::<Value>(&object) else { return };
    if !structural::check(&schema, "schema", true).is_empty() {
        return;
    }
    let node = Node::read(&schema);
    structural::prune(&mut object, &node, true);
    structural::default(&mut object, &node);
    let mut again = object.clone();
    structural::prune(&mut again, &node, true);
    structural::default(&mut again, &node);
    assert_eq!(again, object);
    structural::validate(&object, &node, structural::Target::default());
    Schema::custom("fuzzed", &node);
}

/// A live object with its managers, and a configuration: applied twice, the second time to no effect.
fn apply(data: &[u8]) {
    let Some((live, config)) = pair(data) else { return };
    let Ok((config, _)) = apply::parse(&config) else { return };
    let (Some(live), Some(mut config)) = (Object::from_value(live), Object::from_value(config))
    else {
        return;
    };
    let schema = Schema::built_in();
    let node = custom_schema();
    let built_in = TYPES.iter().map(|name| AnyKind::built_in(schema, ty(name)));
    for place in built_in.chain([AnyKind::custom(&node)]) {
        // Whatever they say they are, so that all of them are walked.
        config.0.insert("apiVersion".into(), "v1".into());
        config.0.insert("kind".into(), "Pod".into());
        apply_twice(place, live.clone(), &config);
    }
}

fn apply_twice(place: AnyKind<'_>, mut live: Object, config: &Object) {
    let sent = live.0.get("metadata").and_then(|metadata| metadata.get("managedFields")).cloned();
    let _ = Managers::take(&mut live);
    let list = sent.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    let managers = Managers::parse(&list).unwrap_or_default();
    let write = Write {
        place,
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        manager: "fuzz",
        scope: Scope::MAIN,
        now: "2026-01-01T00:00:00Z",
        versions: &OneVersion,
    };
    let kept = write.update(managers, sent.as_ref(), &Object::default(), &live);
    let read = kept.clone().into_value();
    assert_eq!(Managers::parse(read.as_array().expect("a list")), Ok(Managers::trusted(read)));
    // As on a server, each field of the live object is somebody's: what is nobody's may go with the
    // second application of an empty value above it, upstream too.
    let Ok(once) = write.apply(kept, &live, config, true) else { return };
    let twice = write.apply(once.managers.clone(), &once.object, config, false);
    assert_eq!(twice.map(|twice| twice.object), Ok(once.object));
}

fn custom_schema() -> Node {
    Node::read(&json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": {
            "tags": {
                "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" },
            },
            "containers": {
                "type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name", "protocol"],
                "items": { "type": "object", "properties": {
                    "name": { "type": "string" },
                    "protocol": { "type": "string", "default": "TCP" },
                    "image": { "type": "string" },
                } },
            },
            "whole": { "type": "object", "x-kubernetes-map-type": "atomic" },
            "each": { "type": "object", "additionalProperties": { "type": "integer" } },
            "open": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "either": { "x-kubernetes-int-or-string": true },
            "pod": { "type": "object", "x-kubernetes-embedded-resource": true },
        } },
    } }))
}

fn label_selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(selector) = LabelSelector::parse(&text) {
        let again = LabelSelector::parse(&selector.to_string());
        assert_eq!(again.map(|one| one.to_string()), Ok(selector.to_string()));
    }
}

fn field_selector(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(selector) = FieldSelector::parse(&text) {
        let _ = selector.matches(|_| "");
        let _ = selector.required_value("metadata.name");
    }
}

fn quantity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(quantity) = Quantity::parse(&text) {
        let shown = quantity.to_string();
        let again = Quantity::parse(&shown).unwrap_or_else(|why| panic!("{text} {shown}: {why}"));
        assert_eq!(again.to_string(), shown, "{text}");
        let _ = (quantity.value(), quantity.milli_value(), quantity.sign());
    }
}
