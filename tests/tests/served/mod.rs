//! One master in this process: the real pipeline over a store without consensus, behind real TLS on a
//! loopback port, with certificates made for the occasion.
#![allow(dead_code, reason = "each flow uses a part of it")]

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) struct Served {
    address: SocketAddr,
    authority: Authority,
    directory: tempfile::TempDir,
    admin: Client,
    pub(crate) server: apiserver::Server,
    pub(crate) store: raft_store::Store,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
    _chores: AbortOnDropHandle<()>,
}

impl Served {
    /// Serving, with everything a new cluster has.
    pub(crate) async fn start() -> Served {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new();
        let store = raft_store::Store::in_memory();
        let mut config = apiserver::Config::new(store.clone());
        let authorities = apiserver::Authorities {
            client_ca_pem: authority.cert.clone(),
            signer: Some(Arc::new(authority.at_work())),
            ..apiserver::Authorities::default()
        };
        config.believed = authorities.into();
        let server = apiserver::Server::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let (_, tls) = tokio::sync::watch::channel(authority.server_tls());
        let serving = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move {
                let keeping = shutdown.clone();
                tokio::join!(
                    server.serve(listener, tls, shutdown),
                    keeping.run_until_cancelled(server.keep_definitions()),
                );
            }
        });
        let working = server.clone();
        let chores = AbortOnDropHandle::new(tokio::spawn(async move { working.chores().await }));
        server.bootstrap().await.expect("a new cluster's objects are written");
        let admin = client(&directory, &authority, address, "admin", "system:masters").await;
        Served {
            address,
            authority,
            directory,
            admin,
            server,
            store,
            shutdown,
            serving,
            _chores: chores,
        }
    }

    pub(crate) fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// A client whose certificate says so.
    pub(crate) async fn client(&self, user: &str, group: &str) -> Client {
        client(&self.directory, &self.authority, self.address, user, group).await
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The CA's certificate, PEM.
    pub(crate) fn ca(&self) -> &str {
        &self.authority.cert
    }

    /// The admin's, for programs.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin-kubeconfig")
    }

    /// What `/metrics` shows.
    pub(crate) async fn metrics(&self) -> String {
        let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
        self.admin.request_text(request).await.expect("metrics")
    }

    /// Fails if the server does not end by itself.
    pub(crate) async fn stop(self) {
        drop(self.admin);
        self.shutdown.cancel();
        let ended = tokio::time::timeout(std::time::Duration::from_secs(20), self.serving).await;
        ended.expect("the server ends when told to").expect("without a panic");
    }
}

/// Code and reason of a refusal.
pub(crate) fn status<T: std::fmt::Debug>(answer: kube::Result<T>) -> (u16, String) {
    match answer {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("a status, not {other:?}"),
    }
}

async fn client(
    directory: &tempfile::TempDir,
    authority: &Authority,
    address: SocketAddr,
    user: &str,
    group: &str,
) -> Client {
    let (cert, key) = authority.issue(user, group, ExtendedKeyUsagePurpose::ClientAuth);
    let write = |name: &str, text: &str| -> PathBuf {
        let path = directory.path().join(format!("{user}-{name}"));
        std::fs::write(&path, text).expect("written");
        path
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": user}}],
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": write("ca.crt", &authority.cert),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": write("crt", &cert),
            "client-key": write("key", &key),
        }}],
    });
    write("kubeconfig", &config.to_string());
    let config: Kubeconfig = serde_json::from_value(config).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(config, &options).await.expect("a usable one");
    Client::try_from(config).expect("a client")
}

struct Authority {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("signed");
        Authority { cert: cert.pem(), key: key.serialize_pem() }
    }

    fn issue(&self, user: &str, group: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, group);
        name.push(DnType::CommonName, user);
        params.distinguished_name = name;
        params.extended_key_usages = vec![usage];
        params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        let own = KeyPair::from_pem(&self.key).expect("our key");
        let issuer = Issuer::from_ca_cert_pem(&self.cert, own).expect("our certificate");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &issuer).expect("signed");
        (cert.pem(), key.serialize_pem())
    }

    /// As the server signs with it.
    fn at_work(&self) -> apiserver::Authority {
        let made = apiserver::Authority::from_pem(self.cert.as_bytes(), self.key.as_bytes());
        made.expect("our own key")
    }

    fn server_tls(&self) -> Arc<rustls::ServerConfig> {
        let (cert, key) = self.issue("kube-apiserver", "test", ExtendedKeyUsagePurpose::ServerAuth);
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("PEM");
        roots.add(ca).expect("a root");
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
        let verifier = verifier.allow_unauthenticated().build().expect("a verifier");
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
        let config = rustls::ServerConfig::builder().with_client_cert_verifier(verifier);
        let mut config = config.with_single_cert(chain, key).expect("our own key");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}
