//! Messages by hand against upstream's wire form, and round trips of whatever the schema allows.

use super::{wire::Parts, *};
use crate::schema::{Field, Shape};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A length-delimited field.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, content.len() as u8];
    out.extend_from_slice(content);
    out
}

fn ty(name: &str) -> TypeId {
    Schema::built_in().get(name).expect("a built-in type")
}

fn written(name: &str, object: Value) -> Vec<u8> {
    write(Schema::built_in(), ty(name), object.as_object().expect("an object")).expect("fits")
}

fn config_map(body: &[u8]) -> Result<Value, String> {
    read(Schema::built_in(), ty("core.v1.ConfigMap"), body).map_err(|error| error.to_string())
}

/// `ObjectMeta` with a name as upstream writes it: every field that is no pointer is there.
fn metadata(name: &str) -> Vec<u8> {
    let mut out = bytes(1, name.as_bytes());
    for number in 2..=6 {
        out.extend(bytes(number, b""));
    }
    out.extend([7 << 3, 0]);
    out.extend(bytes(8, b""));
    out
}

#[test]
fn an_object_is_written_to_the_byte_and_read_as_its_json() {
    let object = json!({ "metadata": { "name": "a" }, "data": { "color": "blue", "b": "" } });
    let message = written("core.v1.ConfigMap", object);
    let empty = bytes(2, &[bytes(1, b"b"), bytes(2, b"")].concat());
    let entry = bytes(2, &[bytes(1, b"color"), bytes(2, b"blue")].concat());
    assert_eq!(message, [bytes(1, &metadata("a")), empty, entry].concat());
    let body = enveloped("v1", "ConfigMap", &message);
    let head = [bytes(1, b"v1"), bytes(2, b"ConfigMap")].concat();
    let expected =
        [MAGIC.to_vec(), bytes(1, &head), bytes(2, &message), bytes(3, b""), bytes(4, b"")];
    assert_eq!(body, expected.concat());
    assert_eq!(
        config_map(&body),
        Ok(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": "a" }, "data": { "color": "blue", "b": "" },
        }))
    );
}

#[test]
fn types_with_a_json_of_their_own_have_a_message_of_their_own() {
    let port = |target: Value| {
        let port = json!({ "port": 80, "targetPort": target });
        written("core.v1.ServicePort", port)
    };
    let rest = |target: &[u8]| {
        [bytes(1, b""), bytes(2, b""), vec![3 << 3, 80], bytes(4, target), vec![5 << 3, 0]].concat()
    };
    assert_eq!(port(json!(8080)), rest(&[8, 0, 16, 0x90, 0x3f, 26, 0]));
    assert_eq!(port(json!("web")), rest(b"\x08\x01\x10\x00\x1a\x03web"));
    let renewed = json!({ "renewTime": "1970-01-01T00:00:01.500000Z" });
    let lease = written("coordination.v1.LeaseSpec", renewed);
    assert_eq!(lease, bytes(4, &[8, 1, 16, 0x80, 0xca, 0xb5, 0xee, 1]));
}

#[test]
fn fields_go_out_by_number_whatever_their_order_in_the_table() {
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u" });
    let fields = [(1, "Node"), (3, "n"), (4, "u"), (5, "v1")];
    let expected = fields.map(|(number, text)| bytes(number, text.as_bytes())).concat();
    assert_eq!(written("meta.v1.OwnerReference", owner), expected);
}

#[test]
fn a_frame_of_a_watch_is_length_and_event() {
    let frame = watch_frame("ADDED", b"k8s\0");
    let event = [bytes(1, b"ADDED"), bytes(2, &bytes(1, b"k8s\0"))].concat();
    assert_eq!(frame, [vec![0, 0, 0, event.len() as u8], event].concat());
}

#[test]
fn what_is_said_of_no_message() {
    let text = |body: &[u8]| config_map(body).unwrap_err();
    assert_eq!(text(b""), "empty data");
    assert_eq!(text(b"k8s\0"), "empty body");
    assert!(text(b"{}").starts_with("provided data does not appear to be a protobuf message"));
    let table = Schema::built_in().get("meta.v1.Table").expect("known");
    assert!(!has_form(Schema::built_in(), table));
    let wrong = json!({ "data": { "a": 1 } });
    let wrong = write(Schema::built_in(), ty("core.v1.ConfigMap"), wrong.as_object().unwrap());
    assert_eq!(
        wrong.unwrap_err().to_string(),
        "core.v1.ConfigMap has no protobuf form: field 2 holds 1"
    );
}

#[test]
fn every_truncation_is_refused_or_read_and_never_panics() {
    let object = json!({ "metadata": { "name": "a", "labels": { "b": "c" } }, "immutable": true });
    let whole = enveloped("v1", "ConfigMap", &written("core.v1.ConfigMap", object));
    for end in 0..whole.len() {
        let _ = config_map(&whole[..end]);
    }
}

#[test]
fn nesting_is_bounded() {
    let mut message = Vec::new();
    for _ in 0..2000 {
        let mut around = field_head(28, message.len());
        around.extend_from_slice(&message);
        message = around;
    }
    let props = ty("apiextensions.v1.JSONSchemaProps");
    let refused = read_message(Schema::built_in(), props, &message);
    assert_eq!(refused, Err("exceeded max depth".into()));
}

#[test]
fn the_head_of_a_field_is_as_long_as_told() {
    let lengths = (0..64).flat_map(|bits| [(1usize << bits) - 1, 1 << bits]);
    for (number, length) in lengths.flat_map(|length| [(1, length), (15, length), (16, length)]) {
        let head = field_head(number, length);
        assert_eq!(field_head_len(number, length), head.len(), "{number}: {length}");
    }
}

#[test]
fn durations_are_in_gos_notation() {
    assert_eq!(read::go_duration(90_500_000_000), "1m30.5s");
    assert_eq!(read::go_duration(3_600_000_000_000), "1h0m0s");
    assert_eq!(read::go_duration(-1_500_000), "-1.5ms");
}

/// Values a type may have, made from a number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }

    fn object(&mut self, ty: TypeId, depth: usize, into: &mut Map<String, Value>) {
        for field in &Schema::built_in().ty(ty).fields {
            if self.roll(3) == 0 && (depth < 5 || field.message().is_none()) {
                match (field.inline, field.message()) {
                    (true, Some(inner)) => self.object(inner, depth + 1, into),
                    _ => drop(into.insert(field.json.to_string(), self.field(field, depth))),
                }
            }
        }
    }

    fn field(&mut self, field: &Field, depth: usize) -> Value {
        match field.shape {
            Shape::One => self.value(field.element, depth),
            Shape::List => {
                (0..1 + self.roll(2)).map(|_| self.value(field.element, depth)).collect()
            }
            Shape::Map => (0..1 + self.roll(2))
                .map(|index| (format!("k{index}"), self.value(field.element, depth)))
                .collect::<Map<_, _>>()
                .into(),
        }
    }

    fn value(&mut self, element: Element, depth: usize) -> Value {
        let number = self.roll(1 << 20);
        let even = number.is_multiple_of(2);
        match element {
            Element::String => format!("s{number}ü").into(),
            Element::Bool => true.into(),
            Element::Int32 => (number as i64 - (1 << 30)).into(),
            Element::Int64 => (number as i64 - (1 << 50)).into(),
            Element::Float64 => (number as f64 + 0.25).into(),
            Element::Bytes => "aGVsbG8=".into(),
            Element::Message(ty) => {
                let mut object = Map::new();
                self.object(ty, depth + 1, &mut object);
                object.into()
            }
            Element::Time => format!("2026-01-02T03:04:{:02}Z", number % 60).into(),
            Element::MicroTime => format!("2026-01-02T03:04:05.{:06}Z", number % 1_000_000).into(),
            Element::IntOrString if even => (number + 1).into(),
            Element::IntOrString => "50%".into(),
            Element::Quantity => format!("{number}Mi").into(),
            Element::RawExtension | Element::Json | Element::FieldsV1 => json!({ "f:a": [number] }),
            Element::SchemaOrBool(_) if even => false.into(),
            Element::SchemaOrArray(_) if even => json!([{}, {}]),
            Element::SchemaOrStringArray(_) if even => json!(["a", ""]),
            Element::SchemaOrBool(ty)
            | Element::SchemaOrArray(ty)
            | Element::SchemaOrStringArray(ty) => self.value(Element::Message(ty), depth),
            Element::StringList => json!(["x", ""]),
            Element::Duration | Element::Any => unreachable!("not in a type with a form"),
        }
    }
}

/// True if all of `part` is in `whole`, which may have zero values besides.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, value)| {
            let empty = value.as_object().is_some_and(Map::is_empty);
            whole.get(key).map_or(empty, |found| contains(found, value))
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(a, b)| contains(a, b))
        }
        _ => whole == part,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(seed in any::<u64>()) {
        let schema = Schema::built_in();
        let types: Vec<TypeId> =
            schema.types().map(|(id, _)| id).filter(|id| has_form(schema, *id)).collect();
        let ty = types[seed as usize % types.len()];
        let mut object = Map::new();
        Dice(seed).object(ty, 0, &mut object);
        let message = write(schema, ty, &object);
        // A type inside may have no form though its owner has.
        prop_assume!(message.is_ok());
        let message = message.expect("assumed");
        let back = read_message(schema, ty, &message).expect("own message");
        prop_assert!(
            contains(&Value::Object(back.clone()), &Value::Object(object.clone())),
            "{}: {object:?} became {back:?}", schema.ty(ty).name
        );
        prop_assert_eq!(write(schema, ty, &back), Ok(message));
    }

    #[test]
    fn whatever_the_bytes_nothing_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_message(Schema::built_in(), ty("core.v1.Pod"), &body);
        let _ = Parts(&body).count();
    }
}
