//! An API server on a store in memory, for trying clients against it: `serve PORT KUBECONFIG`.

use apiserver::{Config, Server};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{RootCertStore, pki_types::PrivateKeyDer, server::WebPkiClientVerifier};
use std::{error::Error, sync::Arc};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let port: u16 = args.next().ok_or("PORT")?.parse()?;
    let kubeconfig = args.next().ok_or("KUBECONFIG")?;
    let _ = rustls::crypto::ring::default_provider().install_default();

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "kubernetes");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()])?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = server.signed_by(&server_key, &issuer)?;

    let admin_key = KeyPair::generate()?;
    let mut admin = CertificateParams::default();
    admin.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    admin.distinguished_name.push(DnType::CommonName, "kubernetes-admin");
    admin.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let admin = admin.signed_by(&admin_key, &issuer)?;

    let encoded = |pem: String| STANDARD.encode(pem);
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "serve",
        "clusters": [{ "name": "serve", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": encoded(ca_certificate.pem()),
        }}],
        "users": [{ "name": "admin", "user": {
            "client-certificate-data": encoded(admin.pem()),
            "client-key-data": encoded(admin_key.serialize_pem()),
        }}],
        "contexts": [{ "name": "serve", "context": { "cluster": "serve", "user": "admin" } }],
    });
    std::fs::write(&kubeconfig, config.to_string())?;

    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone())?;
    let verifier =
        WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let key = PrivateKeyDer::try_from(server_key.serialize_der())?;
    let tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], key)?;

    let server = Server::new(Config::new(raft_store::Store::in_memory()));
    server.bootstrap().await?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stop.cancel();
    });
    let keeping = shutdown.clone();
    tokio::join!(
        server.serve(listener, tokio::sync::watch::channel(Arc::new(tls)).1, shutdown),
        keeping.run_until_cancelled(server.keep_definitions()),
    );
    Ok(())
}
