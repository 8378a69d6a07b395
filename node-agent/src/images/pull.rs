//! Images from registries.

use super::{Error, Image, Images, Result};
use oci_client::{
    Reference,
    client::{Client, ClientConfig, ClientProtocol},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};
use std::{net::IpAddr, sync::Arc};
use tokio::io::AsyncWriteExt;

/// A user's name and password at one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Host and port, as in an image's name.
    pub registry: String,
    pub user: String,
    pub password: String,
}

/// As Go and OCI name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Images {
    /// Fetches the image and unpacks it. Blobs that are here are not fetched again.
    pub async fn pull(self: &Arc<Self>, name: &str, logins: &[Credentials]) -> Result<Image> {
        let reference = super::parse(name)?;
        let failed = |why: String| Error::Pull { name: name.to_string(), why };
        let _turn = self.pulls.acquire().await.map_err(|error| failed(error.to_string()))?;
        // The client takes the process's provider; whoever came first has chosen the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::new(ClientConfig {
            protocol: protocol(reference.registry()),
            ..ClientConfig::default()
        });
        let login = logins.iter().find(|login| login.registry == reference.registry());
        let auth = match login {
            Some(login) => RegistryAuth::Basic(login.user.clone(), login.password.clone()),
            None => RegistryAuth::Anonymous,
        };
        let (manifest, digest) = client
            .pull_image_manifest(&reference, &auth)
            .await
            .map_err(|error| failed(chain(&error)))?;
        for descriptor in manifest.layers.iter().chain([&manifest.config]) {
            self.fetch(&client, &reference, descriptor).await?;
        }
        let layers: Vec<String> =
            manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        let (images, owned) = (self.clone(), name.to_string());
        let config = manifest.config.digest.clone();
        tokio::task::spawn_blocking(move || {
            images.add(&owned, Some(digest), &config, &layers)?;
            images.get(&owned)
        })
        .await
        .map_err(|error| failed(error.to_string()))??
        .ok_or_else(|| failed("the image vanished".into()))
    }

    async fn fetch(
        &self,
        client: &Client,
        reference: &Reference,
        descriptor: &OciDescriptor,
    ) -> Result<()> {
        let target = self.blob(&descriptor.digest);
        if target.exists() {
            return Ok(());
        }
        let path = self.temporary();
        let mut file = tokio::fs::File::create(&path).await?;
        // Verifies the digest while it writes.
        let fetched = client.pull_blob(reference, descriptor, &mut file).await;
        fetched.map_err(|error| Error::Pull {
            name: reference.whole(),
            why: format!("{}: {}", descriptor.digest, chain(&error)),
        })?;
        file.flush().await?;
        Ok(tokio::fs::rename(path, target).await?)
    }
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    text
}

/// Registries on this machine speak plain HTTP, as every other runtime has it.
fn protocol(registry: &str) -> ClientProtocol {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if local { ClientProtocol::Http } else { ClientProtocol::Https }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        Router,
        extract::{Path, State},
        http::{StatusCode, header},
        response::{IntoResponse, Response},
        routing::get,
    };

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    /// Serves the blobs of a store under the distribution API.
    async fn registry(store: Arc<Images>) -> (u16, tokio_util::task::AbortOnDropHandle<()>) {
        async fn manifest(State(store): State<Arc<Images>>, Path(tag): Path<String>) -> Response {
            let name = format!("coxswain.local/demo:{tag}");
            let record = store.index.lock().unwrap().get(&name).cloned();
            let Some(digest) = record.and_then(|record| record.manifest) else {
                return StatusCode::NOT_FOUND.into_response();
            };
            let bytes = std::fs::read(store.blob(&digest)).unwrap();
            ([(header::CONTENT_TYPE, MANIFEST)], bytes).into_response()
        }
        async fn blob(State(store): State<Arc<Images>>, Path(digest): Path<String>) -> Response {
            std::fs::read(store.blob(&digest)).unwrap().into_response()
        }
        let router = Router::new()
            .route("/v2/", get(|| async { "{}" }))
            .route("/v2/demo/manifests/{tag}", get(manifest))
            .route("/v2/demo/blobs/{digest}", get(blob))
            .with_state(store);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (port, tokio_util::task::AbortOnDropHandle::new(task))
    }

    #[tokio::test]
    async fn an_image_comes_from_a_registry_and_an_unknown_tag_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("demo.tar");
        crate::images::build_demo_archive(&archive).unwrap();
        let theirs = Arc::new(Images::open(dir.path().join("theirs")).unwrap());
        theirs.import(&archive).unwrap();
        let ours = Arc::new(Images::open(dir.path().join("ours")).unwrap());
        let (port, _registry) = registry(theirs).await;
        let name = format!("127.0.0.1:{port}/demo:1");
        let image = ours.pull(&name, &[]).await.unwrap();
        assert_eq!(ours.get(&name).unwrap(), Some(image.clone()));
        assert!(image.layers[0].join("bin/busybox").exists());
        let error = ours.pull(&format!("127.0.0.1:{port}/demo:9"), &[]).await.unwrap_err();
        assert!(error.to_string().starts_with("failed to pull image"), "{error}");
    }
}
