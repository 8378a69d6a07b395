//! Checks the protobuf codec against upstream's vectors: `cargo run --example vectors -- DIRECTORY`,
//! where the directory is k8s.io/api's `testdata/HEAD` (a `.json` and a `.pb` of every kind).

#![allow(clippy::print_stdout, reason = "a tool's report")]

use k8s::{protobuf, schema::Schema};
use serde_json::Value;
use std::{error::Error, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: vectors DIRECTORY")?;
    let (mut written, mut read, mut all) = (0, 0, 0);
    let mut names: Vec<_> = fs::read_dir(&directory)?.collect::<Result<_, _>>()?;
    names.sort_by_key(fs::DirEntry::file_name);
    for entry in names {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        all += 1;
        match check(stem, &path) {
            Ok((was_written, was_read)) => {
                written += usize::from(was_written);
                read += usize::from(was_read);
                if !was_written || !was_read {
                    println!("{stem}: written {was_written}, read {was_read}");
                }
            }
            Err(why) => println!("{stem}: {why}"),
        }
    }
    println!("JSON to protobuf: {written} of {all}; protobuf to JSON: {read} of {all}");
    Ok(())
}

/// Whether each direction gives the other file: to the byte, and as a value.
fn check(stem: &str, path: &Path) -> Result<(bool, bool), Box<dyn Error>> {
    let schema = Schema::built_in();
    let name = type_name(stem);
    // Types of every group stand under `core` there.
    let ty = schema.get(&name).or_else(|| schema.get(&name.replacen("core.", "meta.", 1)));
    let ty = ty.ok_or("not in the schema table")?;
    let message = fs::read(path)?;
    let object: Value = serde_json::from_slice(&fs::read(path.with_extension("json"))?)?;
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let map = object.as_object().ok_or("not an object")?;
    let ours = protobuf::write(schema, ty, map)?;
    let ours = protobuf::enveloped(text("apiVersion"), text("kind"), &ours);
    let back = protobuf::read(schema, ty, &message)?;
    if back != object {
        difference("", &back, &object);
    }
    Ok((ours == message, back == object))
}

fn difference(path: &str, ours: &Value, theirs: &Value) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or("(absent)".into())
                };
                difference(&format!("{path}.{key}"), &of(a), &of(b));
            }
        }
        _ if ours != theirs => println!("  {path}: {ours} instead of {theirs}"),
        _ => {}
    }
}

/// `rbac.v1.Role` for `rbac.authorization.k8s.io.v1.Role`.
fn type_name(stem: &str) -> String {
    let mut parts = stem.rsplitn(3, '.');
    let (kind, version, group) = (parts.next(), parts.next(), parts.next());
    let package = match group.unwrap_or_default().split('.').next().unwrap_or_default() {
        "internal" => "apiserverinternal",
        package => package,
    };
    format!("{package}.{}.{}", version.unwrap_or_default(), kind.unwrap_or_default())
}
