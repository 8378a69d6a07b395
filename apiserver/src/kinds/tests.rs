//! The list as a whole: sorted, complete beside its files, known to the schema; tables as printed.

use super::*;
use crate::pipeline::meta;
use k8s::{Status, decode, schema::Schema};
use std::collections::BTreeSet;

mod metadata;
mod others;
mod pods;
mod tables;
mod workloads;

/// Modules beside the list that are not kinds.
const HELPERS: [&str; 3] = ["common", "mod", "tests"];

#[test]
fn every_file_beside_the_list_is_in_it_and_the_list_is_sorted() {
    let source = include_str!("mod.rs");
    let (_, list) = source.split_once("\nkinds! {").expect("the list");
    let (list, _) = list.split_once('}').expect("its end");
    let listed: Vec<&str> = list.split_whitespace().collect();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kinds");
    let files: BTreeSet<String> = std::fs::read_dir(here)
        .expect("the sources")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_string()))
        .filter(|stem| !HELPERS.contains(&stem.as_str()))
        .collect();
    assert_eq!(listed.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), files);
}

#[test]
fn no_two_kinds_share_a_resource_or_a_short_name() {
    let mut resources = BTreeSet::new();
    let mut short_names = BTreeSet::new();
    for kind in BUILT_IN {
        assert!(resources.insert((kind.group, kind.plural)), "{} twice", kind.plural);
        for name in kind.short_names {
            // Both kinds of events have `ev`, as upstream has it.
            assert!(short_names.insert(*name) || *name == "ev", "{name} twice");
        }
    }
}

#[test]
fn the_list_of_kinds() {
    let lines = BUILT_IN.iter().map(|kind| {
        let scope = if kind.namespaced { "namespaced" } else { "cluster" };
        let subresources: Vec<&str> = kind.subresources.iter().map(Subresource::name).collect();
        let (api, short) = (kind.resource().api_version(), kind.short_names.join(","));
        format!("{} {api} {} [{short}] {scope} {:?}", kind.plural, kind.kind, subresources)
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
}

#[test]
fn every_kind_is_in_the_schema() {
    let schema = Schema::built_in();
    for kind in BUILT_IN {
        assert!(schema.get(kind.schema).is_some(), "{} is not in the table", kind.schema);
        for foreign in kind.foreign {
            assert!(schema.get(foreign.schema).is_some(), "{} is not in the table", foreign.schema);
            assert!(kind.versions.contains(&foreign.version), "{} is not served", foreign.version);
        }
        for subresource in kind.subresources {
            if let Subresource::Named { schema: body, .. } = subresource {
                assert!(schema.get(body).is_some(), "{body} is not in the table");
            }
        }
    }
}

fn kind(plural: &str) -> &'static KindDef {
    BUILT_IN.iter().find(|kind| kind.plural == plural).expect("a kind")
}

fn decode(kind: &KindDef, yaml: &str) -> Object {
    let schema = Schema::built_in();
    let ty = schema.get(kind.schema).expect("in the table");
    let decoded = decode::yaml(schema, ty, yaml.as_bytes()).expect("decodes");
    assert!(decoded.unknown.is_empty(), "unknown fields: {:?}", decoded.unknown);
    let mut object = decoded.object;
    k8s::default::apply(schema, ty, &mut object);
    (kind.default)(&mut object);
    object
}

/// What a create of `yaml` in namespace `default` is told, one cause a line; nothing if all is well.
fn check(plural: &str, yaml: &str) -> String {
    let kind = kind(plural);
    let new = created(kind, yaml);
    let mut errors = meta::validate(kind, &new);
    errors.extend((kind.validate)(&new, None));
    causes(kind, &new, &errors)
}

fn created(kind: &KindDef, yaml: &str) -> Object {
    let mut new = decode(kind, yaml);
    if kind.namespaced {
        new.metadata_mut().insert("namespace".into(), "default".into());
    }
    (kind.prepare_create)(&mut new);
    new
}

/// The same for an update of `old`, which is valid.
fn check_update(plural: &str, old: &str, new: &str) -> String {
    let kind = kind(plural);
    let old = created(kind, old);
    let mut wrong = meta::validate(kind, &old);
    wrong.extend((kind.validate)(&old, None));
    assert_eq!(wrong, [], "the old version is valid");
    let mut new = decode(kind, new);
    if kind.namespaced {
        new.metadata_mut().insert("namespace".into(), "default".into());
    }
    (kind.prepare_update)(&mut new, &old);
    let mut errors = meta::validate_update(&new, &old);
    errors.extend((kind.validate)(&new, Some(&old)));
    causes(kind, &new, &errors)
}

fn causes(kind: &KindDef, object: &Object, errors: &[FieldError]) -> String {
    let status = Status::invalid(kind.group, kind.kind, object.name(), errors);
    let causes = status.causes.iter();
    let lines =
        causes.map(|cause| format!("{} | {} | {}", cause.field, cause.reason, cause.message));
    lines.collect::<Vec<_>>().join("\n")
}

/// Header and row of `kubectl get -o wide` at noon on the first day of 2026.
fn table(plural: &str, yaml: &str) -> String {
    let kind = kind(plural);
    let schema = Schema::built_in();
    let ty = schema.get(kind.schema).expect("in the table");
    let object = decode::yaml(schema, ty, yaml.as_bytes()).expect("decodes").object;
    let now: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
    let cells = kind.columns.iter().map(|column| {
        let wide = if column.priority > 0 { "*" } else { "" };
        let cell = match (column.value)(&object, now) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        format!("{}{wide}={cell}", column.name.to_uppercase())
    });
    cells.collect::<Vec<_>>().join(" | ")
}

/// The object as it would be stored, as YAML-like JSON.
fn stored(plural: &str, yaml: &str) -> Value {
    created(kind(plural), yaml).into_value()
}
