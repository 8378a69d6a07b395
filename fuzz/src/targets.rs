//! The decoders of crate k8s. A target is a name, by which its corpus is found, and a function.

use k8s::{
    decode, patch, protobuf,
    quantity::Quantity,
    schema::{Schema, TypeId},
    selector::{FieldSelector, LabelSelector},
    yaml,
};
use serde_json::Value;

/// A name, and what runs under it.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Sorted; adding one is one word here, one `[[bin]]` in `fuzz/Cargo.toml` and a corpus.
pub(crate) const TARGETS: &[Target] = &[
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
