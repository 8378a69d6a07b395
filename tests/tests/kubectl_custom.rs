//! The life of a kind that a user defines, with the real `kubectl` against a master in this process.

mod served;

use served::Served;
use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};
use tests::cluster::kubectl;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: boats.harbour.example.com
spec:
  group: harbour.example.com
  scope: Namespaced
  names: { plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [fleet] }
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        description: A boat and its crew.
        required: [spec]
        properties:
          spec:
            type: object
            description: What the boat is to be.
            required: [crew]
            x-kubernetes-validations:
            - rule: self.crew <= self.seats
              message: there are not seats for all
            properties:
              crew: { type: integer, minimum: 1, description: How many work on it. }
              seats: { type: integer, default: 4 }
              sail: { type: string, default: white, enum: [white, red] }
          status:
            type: object
            properties:
              aboard: { type: integer }
    subresources:
      status: {}
      scale: { specReplicasPath: .spec.crew, statusReplicasPath: .status.aboard }
    additionalPrinterColumns:
    - { name: Crew, type: integer, jsonPath: .spec.crew }
    - { name: Sail, type: string, jsonPath: .spec.sail, priority: 1 }
    selectableFields:
    - jsonPath: .spec.sail
"#;

fn boat(name: &str, spec: &str) -> String {
    let (head, meta) = ("apiVersion: harbour.example.com/v1\nkind: Boat", "metadata: { name: ");
    format!("{head}\n{meta}{name} }}\nspec: {{ {spec} }}\n")
}

async fn ran(served: &Served, arguments: &str, input: &str) -> Output {
    let mut command = Command::new(kubectl());
    command.arg("--kubeconfig").arg(served.kubeconfig());
    // What others have found out about their clusters is nobody's business here.
    command.arg("--cache-dir").arg(served.kubeconfig().with_extension("cache"));
    command.args(arguments.split(' '));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_string();
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("read");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    });
    running.await.expect("no panic")
}

/// What `kubectl` says to `arguments` (split at spaces).
async fn done(served: &Served, arguments: &str, input: &str) -> String {
    let output = ran(served, arguments, input).await;
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Why `kubectl` fails.
async fn refused(served: &Served, arguments: &str, input: &str) -> String {
    let output = ran(served, arguments, input).await;
    assert!(!output.status.success(), "kubectl {arguments}: done");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What it says about the kind, and what about wrong objects of it.
async fn ask(served: &Served) {
    let resources = done(served, "api-resources --api-group=harbour.example.com", "").await;
    assert!(resources.contains("boats") && resources.contains("bt"), "{resources}");
    let explained = done(served, "explain boat.spec", "").await;
    for line in ["What the boat is to be.", "crew\t<integer> -required-", "How many work on it."] {
        assert!(explained.contains(line), "no {line} in:\n{explained}");
    }
    let overfull = refused(served, "create -f -", &boat("full", "crew: 9")).await;
    let why = "spec: Invalid value: there are not seats for all";
    assert!(overfull.contains(why), "{overfull}");
    let misspelt = refused(served, "create -f -", &boat("odd", "crew: 2, mast: 1")).await;
    assert!(misspelt.contains(r#"unknown field "spec.mast""#), "{misspelt}");
}

async fn use_it(served: &Served) {
    let made = done(served, "create -f -", &boat("a", "crew: 2")).await;
    assert_eq!(made, "boat.harbour.example.com/a created\n");
    let applied = done(served, "apply -f -", &boat("b", "crew: 1, sail: red")).await;
    assert_eq!(applied, "boat.harbour.example.com/b created\n");
    let again = done(served, "apply -f -", &boat("b", "crew: 1, sail: red")).await;
    assert_eq!(again, "boat.harbour.example.com/b unchanged\n");
    let changed = done(served, "apply -f -", &boat("b", "crew: 2, sail: red")).await;
    assert_eq!(changed, "boat.harbour.example.com/b configured\n");
    let there = "apply --server-side --field-manager=shipyard -f -";
    let there = done(served, there, &boat("c", "crew: 1")).await;
    assert_eq!(there, "boat.harbour.example.com/c serverside-applied\n");
    let table = done(served, "get bt", "").await;
    let words = |line: &str| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = table.lines().map(words).collect();
    assert_eq!(lines, ["NAME CREW", "a 2", "b 2", "c 1"], "{table}");
    let wide = done(served, "get fleet -o wide", "").await;
    assert!(wide.lines().next().is_some_and(|head| head.contains("SAIL")), "{wide}");
    let red = done(served, "get boats --field-selector=spec.sail=red -o name", "").await;
    assert_eq!(red, "boat.harbour.example.com/b\n");
    let patched = done(served, r#"patch boat a --type=merge -p {"spec":{"sail":"red"}}"#, "").await;
    assert_eq!(patched, "boat.harbour.example.com/a patched\n");
    let status = r#"patch boat a --subresource=status --type=merge -p {"status":{"aboard":1}}"#;
    done(served, status, "").await;
    let scaled = done(served, "scale boat a --replicas=4", "").await;
    assert_eq!(scaled, "boat.harbour.example.com/a scaled\n");
    let full = refused(served, "scale boat a --replicas=5", "").await;
    assert!(full.contains("there are not seats for all"), "{full}");
    let path = "-o jsonpath={.spec.crew}/{.spec.seats}/{.status.aboard}/{.metadata.generation}";
    assert_eq!(done(served, &format!("get boat a {path}"), "").await, "4/4/1/3");
    done(served, "label boat a port=east", "").await;
    let labelled = done(served, "get boats -l port=east -o name", "").await;
    assert_eq!(labelled, "boat.harbour.example.com/a\n");
    let described = done(served, "describe boat a", "").await;
    assert!(described.contains("Aboard:  1"), "{described}");
    let gone = done(served, "delete boat a", "").await;
    assert!(gone.contains(r#"boat.harbour.example.com "a" deleted"#), "{gone}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_defines_a_kind_and_uses_it() {
    if Command::new(kubectl()).args(["version", "--client"]).output().is_err() {
        eprintln!("SKIPPED: needs kubectl");
        return;
    }
    let served = Served::start().await;
    let made = done(&served, "create -f -", DEFINITION).await;
    assert_eq!(
        made,
        "customresourcedefinition.apiextensions.k8s.io/boats.harbour.example.com created\n"
    );
    done(
        &served,
        "wait --for=condition=established --timeout=30s crd/boats.harbour.example.com",
        "",
    )
    .await;
    ask(&served).await;
    use_it(&served).await;
    done(&served, "delete crd boats.harbour.example.com --timeout=30s", "").await;
    let gone = refused(&served, "get boats", "").await;
    // What it remembers of the server, it finds to be so no longer.
    assert!(gone.contains("the server could not find the requested resource"), "{gone}");
    served.stop().await;
}

/// A kind of which little is said: `schema` in one line of YAML.
fn loose(plural: &str, kind: &str, schema: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n\
         metadata: {{ name: {plural}.harbour.example.com }}\n\
         spec:\n  group: harbour.example.com\n  scope: Namespaced\n  \
         names: {{ plural: {plural}, kind: {kind} }}\n  versions:\n  \
         - {{ name: v1, served: true, storage: true, schema: {{ openAPIV3Schema: {schema} }} }}\n"
    )
}

/// Upstream's conformance cases of what a schema keeps without knowing it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_is_said_of_is_kept() {
    if Command::new(kubectl()).args(["version", "--client"]).output().is_err() {
        eprintln!("SKIPPED: needs kubectl");
        return;
    }
    let served = Served::start().await;
    let keeps = "type: object, x-kubernetes-preserve-unknown-fields: true";
    let within = format!(
        "{{ type: object, description: About tides., properties: {{ spec: {{ {keeps} }} }} }}"
    );
    let kinds = [
        ("winds", "Wind", format!("{{ {keeps} }}"), "a: { b: [{ c: d }] }", "<empty>"),
        ("tides", "Tide", within, "spec: { a: null, b: [{ c: d }] }", "About tides."),
    ];
    for (plural, kind, schema, body, described) in kinds {
        done(&served, "create -f -", &loose(plural, kind, &schema)).await;
        let name = format!("crd/{plural}.harbour.example.com");
        done(&served, &format!("wait --for=condition=established --timeout=30s {name}"), "").await;
        let object = format!(
            "apiVersion: harbour.example.com/v1\nkind: {kind}\nmetadata: {{ name: x }}\n{body}\n"
        );
        for verb in ["create", "apply"] {
            done(&served, &format!("{verb} -f -"), &object).await;
            let path = if kind == "Wind" { "{.a.b[0].c}" } else { "{.spec.b[0].c}" };
            let shown = done(&served, &format!("get {plural} x -o jsonpath={path}"), "").await;
            assert_eq!(shown, "d", "{verb} {kind}");
            done(&served, &format!("delete {plural} x"), "").await;
        }
        let explained = done(&served, &format!("explain {plural}"), "").await;
        assert!(explained.contains(described) && explained.contains(kind), "{explained}");
        let absent = refused(&served, &format!("explain {plural}.metadata.absent"), "").await;
        assert!(absent.contains(r#"field "absent" does not exist"#), "{absent}");
    }
    served.stop().await;
}
