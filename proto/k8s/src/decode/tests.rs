use super::*;
use proptest::prelude::*;
use serde_json::json;

fn ty(name: &str) -> TypeId {
    Schema::built_in().get(name).unwrap()
}

fn read(name: &str, body: &str) -> Result<Decoded, DecodeError> {
    json(Schema::built_in(), ty(name), body.as_bytes())
}

fn object(name: &str, body: Value) -> Value {
    let decoded = read(name, &body.to_string()).unwrap();
    assert_eq!(decoded.strict, [] as [&str; 0]);
    decoded.object.into_value()
}

#[test]
fn a_pod_is_read_and_made_canonical() {
    let pod = object(
        "core.v1.Pod",
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web", "labels": {"a": null, "b": "c"}, "creationTimestamp": null,
                "deletionTimestamp": "2026-11-21T02:00:00.5+02:00", "annotations": {},
            },
            "spec": {
                "nodeName": "", "hostNetwork": false, "priority": 0,
                "containers": [{
                    "name": "a", "image": "b", "command": [],
                    "resources": {"limits": {"cpu": 2, "memory": "1024Ki"}, "requests": {"cpu": 0.5}},
                    "livenessProbe": {"httpGet": {"port": "http"}, "initialDelaySeconds": 0},
                }],
                "initContainers": null, "securityContext": {},
            },
            "status": {},
        }),
    );
    insta::assert_json_snapshot!(pod);
}

#[test]
fn type_errors_have_the_words_of_upstream() {
    let cases = [
        ("apps.v1.Deployment", r#"{"spec":{"replicas":"three"}}"#),
        ("apps.v1.Deployment", r#"{"spec":{"replicas":1.5}}"#),
        ("apps.v1.Deployment", r#"{"spec":{"replicas":3000000000}}"#),
        ("apps.v1.Deployment", r#"{"spec":[]}"#),
        ("apps.v1.Deployment", r#"[]"#),
        ("apps.v1.Deployment", r#""x""#),
        (
            "apps.v1.Deployment",
            r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"A","value":1}]}]}}}}"#,
        ),
        ("core.v1.Pod", r#"{"metadata":{"labels":{"a":1}}}"#),
        ("core.v1.Pod", r#"{"metadata":{"labels":"a"}}"#),
        ("core.v1.Pod", r#"{"metadata":{"creationTimestamp":"yesterday"}}"#),
        ("core.v1.Pod", r#"{"metadata":{"creationTimestamp":5}}"#),
        ("core.v1.Pod", r#"{"spec":{"containers":{"name":"a"}}}"#),
        ("core.v1.Pod", r#"{"spec":{"hostNetwork":"yes"}}"#),
        ("core.v1.Pod", r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#),
        ("core.v1.Pod", r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":true}}}]}}"#),
        ("core.v1.Pod", r#"{"spec":{"containers":[{"resources":{"limits":5}}]}}"#),
        ("core.v1.Service", r#"{"spec":{"ports":[{"targetPort":1.5}]}}"#),
        ("core.v1.Service", r#"{"spec":{"ports":[{"targetPort":[]}]}}"#),
        ("core.v1.Secret", r#"{"data":{"a":"not base64!"}}"#),
        ("core.v1.Secret", r#"{"data":{"a":5}}"#),
        ("core.v1.Secret", r#"{"kind":5}"#),
        ("authentication.v1.TokenReview", r#"{"status":{"user":{"extra":{"a":"b"}}}}"#),
    ];
    let texts = cases.map(|(name, body)| read(name, body).unwrap_err().to_string());
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn the_answer_names_what_was_sent_and_what_was_wanted() {
    let head = Head::new("apps/v1", "Deployment");
    let answers = [
        (r#"{"spec":{"replicas":"three"}}"#),
        (r#"{"spec":"#),
        ("spec: 5"),
        (r#"{"spec":{"replicas":1}, "metadata" {"name": "x"}}"#),
    ]
    .map(|body| {
        let status = read("apps.v1.Deployment", body).unwrap_err();
        let status = status.status(&head, "Deployment", body.as_bytes());
        format!("{} {}: {}", status.code, status.reason, status.message)
    });
    insta::assert_snapshot!(answers.join("\n"));
}

#[test]
fn unknown_and_duplicate_fields_are_collected() {
    let body = r#"{
        "apiVersion": "v1", "kind": "Pod", "kind": "Pod", "extra": {"a": [1]},
        "metadata": {"name": "a", "name": "b", "labels": {"x": "1", "x": "2"}, "Name": "c"},
        "spec": {
            "containers": [{"name": "a", "imagee": "b"}, {"imagee": 1, "imagee": 2, "kind": "x"}],
            "volumes": [{"emptyDir": {}, "emptyDir": {"medium": "Memory"}}]
        }
    }"#;
    let decoded = read("core.v1.Pod", body).unwrap();
    insta::assert_snapshot!(decoded.strict_error().unwrap());
    assert_eq!(decoded.object.name(), "b");
    assert_eq!(decoded.object.label("x"), Some("2"));
    assert!(decoded.unknown.contains(&"spec.containers[1].kind".to_string()));
    assert!(decoded.duplicate.contains(&"metadata.labels.x".to_string()));
    assert!(decoded.object.at("/spec/containers/0/imagee").is_none(), "unknown fields are dropped");
    let status = decoded.strict_status(&Head::new("v1", "Pod"), "Pod").unwrap();
    assert!(
        status.message.starts_with(
            "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: "
        )
    );
}

#[test]
fn strict_errors_are_bounded() {
    let fields: Vec<String> = (0..500).map(|n| format!("\"f{n}\":1")).collect();
    let decoded = read("core.v1.Pod", &format!("{{{}}}", fields.join(","))).unwrap();
    assert_eq!(decoded.strict.len(), 100);
}

#[test]
fn types_with_their_own_json_form_are_read() {
    let crd = object(
        "apiextensions.v1.CustomResourceDefinition",
        json!({"spec": {"group": "x", "versions": [{"name": "v1", "served": true, "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {
                "a": {"type": "array", "items": {"type": "string", "default": null}},
                "b": {"additionalProperties": false, "default": {"x": [1.5, null]}},
                "c": {"additionalProperties": {"type": "string"}},
            }},
        }}]}}),
    );
    insta::assert_json_snapshot!(crd);
    let review = object(
        "authentication.v1.TokenReview",
        json!({"status": {"user": {"extra": {"a": ["b", "c"]}}}}),
    );
    assert_eq!(review["status"]["user"]["extra"], json!({"a": ["b", "c"]}));
    let bad =
        r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"additionalProperties":"x"}}}]}}"#;
    let error = read("apiextensions.v1.CustomResourceDefinition", bad).unwrap_err();
    assert_eq!(error.to_string(), "boolean or JSON schema expected");
}

/// As Go's decoder does: a custom object's decimals and the keys of `fieldsV1` are printed as what they were
/// read from, whatever their length.
#[test]
fn decimals_are_read_exactly() {
    let long = "8".repeat(68) + "0";
    for text in
        [&long, "0.1", "1.7976931348623157e308", "9007199254740993.0", "122.416294033786585"]
    {
        let exact: f64 = text.parse().unwrap();
        let read: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read.as_f64(), Some(exact), "{text}");
        let again: Value = serde_json::from_str(&read.to_string()).unwrap();
        assert_eq!(again, read, "{text}");
    }
}

#[test]
fn embedded_objects_keep_their_own_head() {
    let set = object(
        "apps.v1.StatefulSet",
        json!({"spec": {"serviceName": "s", "volumeClaimTemplates": [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "d"}},
        ]}}),
    );
    assert_eq!(set["spec"]["volumeClaimTemplates"][0]["kind"], "PersistentVolumeClaim");
    let revision = object(
        "apps.v1.ControllerRevision",
        json!({"data": {"anything": [null, {"goes": 1}]}, "revision": 1}),
    );
    assert_eq!(revision["data"]["anything"][1]["goes"], 1);
}

#[test]
fn the_head_is_read_first() {
    assert_eq!(head(br#"{"kind":"Pod","apiVersion":"v1"}"#), Ok(Head::new("v1", "Pod")));
    assert_eq!(head(br#"{"kind":"Pod","kind":"Job"}"#), Ok(Head::new("", "Job")));
    assert_eq!(head(b"{}"), Ok(Head::default()));
    assert_eq!(Head::new("apps/v1", "").version(), "v1");
    let texts = [&b"{"[..], b"", br#"{"kind":1}"#, b"[]"].map(|body| head(body).unwrap_err());
    insta::assert_snapshot!(texts.map(|error| error.to_string()).join("\n"));
}

#[test]
fn bounds_are_kept() {
    let large = vec![b' '; BODY_BYTES_MAX + 1];
    let error = json(Schema::built_in(), ty("core.v1.Pod"), &large).unwrap_err();
    assert_eq!(error.status(&Head::default(), "Pod", &large).code, 413);
    let deep = |field: &str| {
        format!("{}1{}", format!("{{\"{field}\":").repeat(20_000), "}".repeat(20_000))
    };
    let schema = read("apiextensions.v1.JSONSchemaProps", &deep("not"));
    assert_eq!(schema, Err(DecodeError::TooDeep));
    assert!(read("core.v1.Pod", &deep("unknown")).is_ok(), "skipped without recursion");
    let deep = "a:\n - ".to_string() + &"[".repeat(20_000);
    assert!(yaml(Schema::built_in(), ty("core.v1.Pod"), deep.as_bytes()).is_err());
}

#[test]
fn yaml_is_the_same_as_json() {
    let text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  b: |\n    c\n  d: 'yes'\n";
    let decoded = yaml(Schema::built_in(), ty("core.v1.ConfigMap"), text.as_bytes()).unwrap();
    assert_eq!(decoded.object.at("/data"), Some(&json!({"b": "c\n", "d": "yes"})));
    let json_text = br#"{"metadata":{"name":"a","name":"b"}}"#;
    let decoded = yaml(Schema::built_in(), ty("core.v1.ConfigMap"), json_text).unwrap();
    assert_eq!(decoded.duplicate, ["metadata.name"]);
}

#[test]
fn yaml_pitfalls_are_those_of_upstream() {
    let read = |text: &str| {
        let decoded = yaml(Schema::built_in(), ty("core.v1.Pod"), text.as_bytes());
        match decoded {
            Ok(decoded) => format!(
                "{} {}",
                Value::Object(decoded.object.0.clone()),
                decoded.strict_error().unwrap_or_default()
            ),
            Err(error) => error.to_string(),
        }
    };
    let texts = [
        // Octal, as file modes are written.
        "spec: {volumes: [{name: a, secret: {secretName: b, defaultMode: 0644}}]}",
        "spec: {hostNetwork: yes}",
        "metadata: {labels: {a: yes}}",
        "metadata: {labels: {a: 1.20}}",
        "metadata: {name: a}\nmetadata: {name: b}\n",
        "metadata: {name: a\n",
        "a: &a [*a]",
        "metadata:\n\tname: a\n",
        "spec: {priority: 1e3, activeDeadlineSeconds: 2.0, terminationGracePeriodSeconds: 1.5}",
        "spec: {overhead: {cpu: 1.0, memory: 0x10}}",
        "metadata: {annotations: {1: a, null: b}}",
        "~",
        "",
    ]
    .map(read);
    insta::assert_snapshot!(texts.join("\n"));
}

#[test]
fn values_in_process_are_checked_alike() {
    let good = Object::from_value(json!({"spec": {"replicas": 1, "bogus": 2}})).unwrap();
    let decoded = check(Schema::built_in(), ty("apps.v1.Deployment"), &good).unwrap();
    assert_eq!(decoded.unknown, ["spec.bogus"]);
    let bad = json!({"spec": {"replicas": "1"}});
    let error = value(Schema::built_in(), ty("apps.v1.Deployment"), &bad).unwrap_err();
    assert!(error.to_string().contains("DeploymentSpec.spec.replicas of type int32"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_body_panics(body in r#"([{}\[\]":,a-c0-9eE. \\\-]|"spec":|"metadata":|"labels":|null|true){0,30}"#) {
        for name in ["core.v1.Pod", "apps.v1.Deployment"] {
            let id = ty(name);
            let _ = json(Schema::built_in(), id, body.as_bytes());
            let _ = head(body.as_bytes());
        }
    }

    #[test]
    fn no_yaml_panics(body in "([-{}\\[\\]:,a-c0-9&*!|>'\"#% \n]|spec: |metadata: ){0,30}") {
        let _ = yaml(Schema::built_in(), ty("core.v1.Pod"), body.as_bytes());
    }

    #[test]
    fn reading_what_was_read_changes_nothing(replicas in 0i32.., name in "[a-z]{0,5}", cpu in 0u32..5000) {
        let body = json!({
            "metadata": {"name": name, "labels": {"a": name}},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [
                {"name": name, "resources": {"limits": {"cpu": format!("{cpu}m")}}},
            ]}}},
        });
        let once = object("apps.v1.Deployment", body);
        prop_assert_eq!(object("apps.v1.Deployment", once.clone()), once);
    }
}
