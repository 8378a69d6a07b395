//! `kubectl apply`, client-side and server-side, and what goes with it: conflicts, the way from one to
//! the other, `diff`, `--prune` and edits, against a master in this process.

mod served;

use served::Served;
use std::{
    io::Write as _,
    process::{Command, Stdio},
};
use tests::cluster::kubectl;

const WEB: &str = r#"{
  "apiVersion": "apps/v1", "kind": "Deployment",
  "metadata": {"name": "web", "labels": {"app": "web", "prune": "yes"}},
  "spec": {
    "replicas": 2,
    "selector": {"matchLabels": {"app": "web"}},
    "template": {
      "metadata": {"labels": {"app": "web"}},
      "spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}
    }
  }
}"#;

const MAP: &str = r#"{
  "apiVersion": "v1", "kind": "ConfigMap",
  "metadata": {"name": "kept", "labels": {"prune": "yes"}}, "data": {"a": "b"}
}"#;

/// `manager operation subresource` of each.
const MANAGERS: &str =
    "jsonpath={range .metadata.managedFields[*]}{.manager} {.operation} {.subresource},{end}";

/// What a run of `kubectl` said and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `kubectl` with these words; `input` is what `-f -` reads.
async fn run(served: &Served, words: &[&str], input: &str) -> Said {
    let mut command = Command::new(kubectl());
    command.arg("--kubeconfig").arg(served.kubeconfig()).args(words).env("KUBE_EDITOR", EDITOR);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_string();
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        // Less than a pipe holds, so that nobody waits.
        child.stdin.take().expect("piped").write_all(input.as_bytes())?;
        child.wait_with_output()
    });
    let output = ran.await.expect("no panic").expect("kubectl runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Changes a value that only edits have.
const EDITOR: &str = "sed -i s/patched/edited/";

/// Its output, if it succeeded.
async fn done(served: &Served, words: &str, input: &str) -> String {
    let said = run(served, &words.split(' ').collect::<Vec<_>>(), input).await;
    assert_eq!(said.code, Some(0), "kubectl {words}: {}{}", said.out, said.err);
    said.out
}

async fn managers(served: &Served, object: &str) -> String {
    let said = run(served, &["get", object, "-o", MANAGERS], "").await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    // Their order is that of seconds, which may or may not pass between two of them.
    let mut all: Vec<&str> = said.out.split_terminator(',').map(str::trim).collect();
    all.sort_unstable();
    all.join(", ")
}

async fn there_is_kubectl() -> bool {
    let found = Command::new(kubectl()).args(["version", "--client"]).output().is_ok();
    if !found {
        eprintln!("SKIPPED: needs kubectl");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_apply_see_each_other() {
    if !there_is_kubectl().await {
        return;
    }
    let served = Served::start().await;
    let apply = "apply --server-side -f -";
    assert_eq!(done(&served, apply, WEB).await, "deployment.apps/web serverside-applied\n");
    let scale = "patch deployment web --subresource=scale --type=merge --field-manager=scaler -p";
    let mut scale: Vec<&str> = scale.split(' ').collect();
    scale.push(r#"{"spec":{"replicas":3}}"#);
    assert_eq!(run(&served, &scale, "").await.code, Some(0));
    let refused = run(&served, &["apply", "--server-side", "-f", "-"], WEB).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    let why = "error: Apply failed with 1 conflict: conflict with \"scaler\" with subresource \
               \"scale\" using apps/v1: .spec.replicas\n\
               Please review the fields above--they currently have other managers.";
    assert!(refused.err.starts_with(why), "{}", refused.err);
    done(&served, "apply --server-side --force-conflicts -f -", WEB).await;
    assert_eq!(managers(&served, "deployment/web").await, "kubectl Apply");

    let other = WEB.replace("nginx:1", "nginx:2");
    let refused = run(&served, &["diff", "--server-side", "--field-manager=o", "-f", "-"], &other);
    let refused = refused.await;
    assert!(refused.err.contains("conflict with \"kubectl\""), "{}", refused.err);
    let differs = run(&served, &["diff", "--server-side", "-f", "-"], &other).await;
    assert_eq!(differs.code, Some(1), "{}", differs.err);
    assert!(differs.out.contains("+      - image: nginx:2"), "{}", differs.out);
    let hidden = done(&served, "get deployment web -o yaml", "").await;
    assert!(!hidden.contains("managedFields"), "{hidden}");
    let shown = done(&served, "get deployment web -o yaml --show-managed-fields", "").await;
    assert!(shown.contains("manager: kubectl\n"), "{shown}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_side_applier_becomes_a_server_side_one() {
    if !there_is_kubectl().await {
        return;
    }
    let served = Served::start().await;
    done(&served, "apply -f -", WEB).await;
    assert_eq!(managers(&served, "deployment/web").await, "kubectl-client-side-apply Update");
    assert_eq!(done(&served, "apply -f -", WEB).await, "deployment.apps/web unchanged\n");
    let next = WEB.replace("nginx:1", "nginx:2").replace(r#""replicas": 2,"#, "");
    done(&served, "apply --server-side -f -", &next).await;
    assert_eq!(
        managers(&served, "deployment/web").await,
        "kubectl Apply, kubectl-last-applied Apply"
    );
    let replicas = done(&served, "get deployment web -o jsonpath={.spec.replicas}", "").await;
    assert_eq!(replicas, "1", "what the old configuration alone had said is gone");
    let last = done(&served, "apply view-last-applied deployment/web", "").await;
    assert!(last.contains("image: nginx:2"), "the way back is kept open: {last}");
    let back = WEB.replace("nginx:1", "nginx:3");
    assert_eq!(done(&served, "apply -f -", &back).await, "deployment.apps/web configured\n");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_verb_of_kubectl_owns_what_it_changed() {
    if !there_is_kubectl().await {
        return;
    }
    let served = Served::start().await;
    done(&served, "apply -f -", WEB).await;
    done(&served, "apply -f -", MAP).await;
    done(&served, "label configmap kept x=y", "").await;
    done(&served, "annotate configmap kept n=m", "").await;
    done(&served, r#"patch configmap kept --type=merge -p {"data":{"q":"patched"}}"#, "").await;
    assert_eq!(done(&served, "edit configmap kept", "").await, "configmap/kept edited\n");
    let managed = managers(&served, "configmap/kept").await;
    for manager in ["client-side-apply", "label", "annotate", "edit"] {
        assert!(managed.contains(&format!("kubectl-{manager} Update")), "{manager}: {managed}");
    }
    assert!(!managed.contains("kubectl-patch"), "all it had set is another's: {managed}");
    done(&served, "set image deployment/web nginx=nginx:9", "").await;
    done(&served, "scale deployment/web --replicas=4", "").await;
    let managed = managers(&served, "deployment/web").await;
    assert!(managed.contains("kubectl-set Update"), "{managed}");
    assert!(managed.contains(" Update scale"), "{managed}");

    let prune = "apply --prune -l prune=yes --prune-allowlist=apps/v1/Deployment -f -";
    let pruned = done(&served, prune, MAP).await;
    assert!(pruned.contains("deployment.apps/web pruned\n"), "{pruned}");
    assert!(pruned.contains("configmap/kept "), "{pruned}");
    served.stop().await;
}
