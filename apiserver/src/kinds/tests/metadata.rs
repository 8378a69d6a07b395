//! Names, labels, annotations, owners and finalizers, the same for every kind.

use super::{check, check_update};

#[test]
fn names() {
    let named = |plural: &str, name: &str| check(plural, &format!("metadata: {{name: {name:?}}}"));
    let long = "a".repeat(254);
    let cases = [
        named("configmaps", "My_Map"),
        named("configmaps", ""),
        named("configmaps", &long),
        named("namespaces", "a.b"),
        named("clusterroles", "system:my/role"),
        check("configmaps", "metadata: {generateName: 'Web-'}"),
        check("services", "metadata: {name: 1web}\nspec: {ports: [{port: 80}]}"),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
}

#[test]
fn labels_annotations_owners_and_finalizers() {
    insta::assert_snapshot!(check(
        "configmaps",
        r"
        metadata:
          name: web
          labels: {'bad key!': x, app: 'no spaces please'}
          annotations: {'Bad Key': x}
          finalizers: ['no/such/thing', orphan, foregroundDeletion]
          ownerReferences:
          - {apiVersion: apps/v1, kind: ReplicaSet, name: a, uid: '1', controller: true}
          - {apiVersion: '', kind: '', name: b, uid: '2', controller: true}
          - {apiVersion: v1, kind: Event, name: c, uid: '3'}
        "
    ));
}

#[test]
fn what_an_update_may_not_change() {
    let old = "metadata: {name: web, uid: a, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a.io/x]}";
    let new = "metadata: {name: web, uid: b, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a.io/x, a.io/y]}";
    insta::assert_snapshot!(check_update("configmaps", old, new));
}
