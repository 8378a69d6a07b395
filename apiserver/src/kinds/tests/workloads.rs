//! Deployments, ReplicaSets and their kin.

use super::{check, check_update, stored};

const DEPLOYMENT: &str = "
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx}]}
";

#[test]
fn a_deployment_is_filled_in() {
    insta::assert_yaml_snapshot!(stored("deployments", DEPLOYMENT));
    assert_eq!(check("deployments", DEPLOYMENT), "");
}

#[test]
fn other_workloads_are_filled_in() {
    for kind in ["replicasets", "statefulsets", "daemonsets"] {
        let mut object = stored(kind, DEPLOYMENT);
        object["spec"]["template"] = "…".into();
        insta::assert_yaml_snapshot!(kind, object);
        assert_eq!(check(kind, DEPLOYMENT), "", "{kind}");
    }
    let job = "
metadata: {name: once, uid: 1-2-3}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}
";
    insta::assert_yaml_snapshot!("jobs", stored("jobs", job));
    assert_eq!(check("jobs", job), "");
    let cron = "
metadata: {name: often}
spec:
  schedule: '*/5 * * * *'
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}
";
    assert_eq!(check("cronjobs", cron), "");
    assert_eq!(
        check("cronjobs", &cron.replace("*/5 * * * *", "* *")),
        "spec.schedule | FieldValueInvalid | Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"
    );
}

#[test]
fn deployments_that_are_wrong() {
    let change = |from: &str, to: &str| {
        let new = DEPLOYMENT.replace(from, to);
        assert_ne!(new, DEPLOYMENT);
        check("deployments", &new)
    };
    let cases = [
        change("spec:\n", "spec:\n  replicas: -1\n"),
        change("labels: {app: web}", "labels: {app: other}"),
        change("  selector: {matchLabels: {app: web}}\n", ""),
        change("{matchLabels: {app: web}}", "{}"),
        change("containers: [{", "restartPolicy: Never, activeDeadlineSeconds: 5, containers: [{"),
        change(
            "spec:\n  sel",
            "spec:\n  strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}\n  sel",
        ),
        change("spec:\n  sel", "spec:\n  strategy: {type: Bounce}\n  sel"),
        change(
            "spec:\n  sel",
            "spec:\n  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}\n  sel",
        ),
        change(
            "spec:\n  sel",
            "spec:\n  strategy: {rollingUpdate: {maxSurge: x, maxUnavailable: 101%}}\n  sel",
        ),
        change("spec:\n  sel", "spec:\n  minReadySeconds: 700\n  sel"),
        change("image: nginx", "image: ''"),
    ];
    insta::assert_snapshot!(cases.join("\n--\n"));
}

#[test]
fn selectors_stay() {
    let new = DEPLOYMENT.replace("app: web", "app: new");
    for kind in ["deployments", "replicasets", "statefulsets", "daemonsets"] {
        insta::assert_snapshot!(
            kind.to_string() + "-selector",
            check_update(kind, DEPLOYMENT, &new)
        );
    }
    let scaled = DEPLOYMENT.replace("spec:\n  sel", "spec:\n  replicas: 3\n  sel");
    assert_eq!(check_update("deployments", DEPLOYMENT, &scaled), "");
}
