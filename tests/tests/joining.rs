//! Nodes come into a cluster with a token: the agent's own way in, against the API server in this process.

mod served;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{Api, ListParams, PostParams};
use node_agent::certificates::{Standing, join, standing};
use serde_json::json;
use served::Served;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// For anything that takes milliseconds when it works.
const BOUND: Duration = Duration::from_secs(20);
const NODES: &str = "system:bootstrappers:coxswain:nodes";

fn config(served: &Served, name: &str, directory: &Path) -> node_agent::Config {
    let file = |name: &str| directory.join("pki").join(name);
    node_agent::Config {
        node_name: name.into(),
        node_ip: "127.0.0.1".parse().expect("an address"),
        masters: vec![served.url()],
        ca: file("ca.crt"),
        client_cert: file("client.crt"),
        client_key: file("client.key"),
        server_cert: file("server.crt"),
        server_key: file("server.key"),
        data_dir: directory.into(),
        service_cidr: "10.96.0.0/16".into(),
        cluster_cidr: "10.244.0.0/16".into(),
        cluster_dns: "10.96.0.10".parse().expect("an address"),
        cluster_domain: "cluster.local".into(),
        lease_renew_interval: Duration::from_secs(10),
        images: Vec::new(),
        oci_runtime: None,
        kubelet_port: 10250,
    }
}

/// As `coxswain token create` makes it; what it is shown as.
async fn token(served: &Served, id: &str, group: &str, expiration: &str) -> String {
    let secret = json!({
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}")},
        "stringData": {
            "token-id": id,
            "token-secret": "0123456789abcdef",
            "expiration": expiration,
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": group,
        },
    });
    let secret: Secret = serde_json::from_value(secret).expect("a Secret");
    let secrets: Api<Secret> = Api::namespaced(served.admin(), "kube-system");
    secrets.create(&PostParams::default(), &secret).await.expect("created");
    format!("{id}.0123456789abcdef")
}

async fn come(served: &Served, name: &str, at: &Path, token: &str) -> Result<(), String> {
    let config = config(served, name, at);
    let came = tokio::time::timeout(BOUND, join(&config, served.ca(), token)).await;
    let Ok(came) = came else { panic!("{name} neither joins nor is refused within {BOUND:?}") };
    came.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_token_and_is_itself_from_then_on() {
    let served = Served::start().await;
    let good = token(&served, "aaaaaa", NODES, "2999-01-01T00:00:00Z").await;
    let directory = tempfile::tempdir().expect("a directory");
    let config = config(&served, "n1", directory.path());
    assert_eq!(standing(&config).expect("read"), Standing::Missing);
    come(&served, "n1", directory.path(), &good).await.expect("let in");
    assert_eq!(standing(&config).expect("read"), Standing::Good);
    assert_eq!(std::fs::read_to_string(&config.ca).expect("a CA"), served.ca());
    for file in [&config.client_cert, &config.client_key] {
        let mode = std::fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let requests: Api<CertificateSigningRequest> = Api::all(served.admin());
    let requests = requests.list(&ListParams::default()).await.expect("a list").items;
    let [request] = &requests[..] else { panic!("one request: {requests:#?}") };
    assert_eq!(request.spec.signer_name, "kubernetes.io/kube-apiserver-client-kubelet");
    assert_eq!(request.spec.username.as_deref(), Some("system:bootstrap:aaaaaa"));
    // Another name on the same machine is another node.
    let renamed = node_agent::Config { node_name: "n2".into(), ..config };
    let Standing::Unusable(why) = standing(&renamed).expect("read") else { panic!("of n1") };
    assert_eq!(why, "it is of system:node:n1, not of node n2");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_join_is_told_why() {
    let served = Served::start().await;
    let good = token(&served, "aaaaaa", NODES, "2999-01-01T00:00:00Z").await;
    let masters = "system:bootstrappers:coxswain:masters";
    let of_masters = token(&served, "bbbbbb", masters, "2999-01-01T00:00:00Z").await;
    let over = token(&served, "cccccc", NODES, "2001-01-01T00:00:00Z").await;
    let directory = tempfile::tempdir().expect("a directory");
    let why = async |name: &str, at: &Path, token: &str| {
        come(&served, name, at, token).await.expect_err("refused")
    };
    for wrong in [&over, "zzzzzz.0123456789abcdef", "aaaaaa.fedcba9876543210"] {
        let why = why("n1", directory.path(), wrong).await;
        assert!(why.starts_with("the token is unknown or its time is over; run `cox"), "{why}");
    }
    let said = why("n1", directory.path(), &of_masters).await;
    assert!(said.starts_with("the token is not one for nodes (certificatesigning"), "{said}");
    assert!(!directory.path().join("pki/client.crt").exists());

    let ready = json!({
        "metadata": {"name": "n1"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let node: Node = serde_json::from_value(ready).expect("a Node");
    let nodes: Api<Node> = Api::all(served.admin());
    nodes.create(&PostParams::default(), &node).await.expect("created");
    let said = why("n1", directory.path(), &good).await;
    assert!(said.starts_with("there is a node n1 already, and it is Ready"), "{said}");
    // The same machine, when its certificate is no good any more: it is that node.
    come(&served, "n3", directory.path(), &good).await.expect("let in");
    let said = why("n1", directory.path(), &good).await;
    assert!(said.starts_with("there is a node n1 already"), "another node's certificate: {said}");
    nodes.delete("n1", &Default::default()).await.expect("deleted");
    come(&served, "n1", directory.path(), &good).await.expect("let in");
    nodes.create(&PostParams::default(), &node).await.expect("created");
    come(&served, "n1", directory.path(), &good).await.expect("let in again");
    served.stop().await;
}
