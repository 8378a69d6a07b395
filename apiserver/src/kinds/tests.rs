//! The list as a whole: sorted, complete beside its files, known to the schema; tables as printed.

use super::*;
use std::collections::BTreeSet;

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
