//! Reads what a client needs from a kubeconfig file: one context's servers and credentials.

use super::{Config, Error, Identity, Trust};
use base64::Engine;
use serde::Deserialize;
use std::{fs, path::Path};

/// Name of the cluster extension that lists every master:
/// `extensions: [{name: coxswain, extension: {servers: [https://…, …]}}]`. kubectl leaves it alone
/// and uses `server`.
pub const SERVERS_EXTENSION: &str = "coxswain";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    #[serde(default)]
    certificate_authority: Option<String>,
    #[serde(default)]
    certificate_authority_data: Option<String>,
    #[serde(default)]
    extensions: Vec<NamedExtension>,
}

#[derive(Deserialize)]
struct NamedExtension {
    name: String,
    #[serde(default)]
    extension: serde_json::Value,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    #[serde(default)]
    client_certificate: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
    #[serde(default)]
    token: Option<String>,
}

/// The client configuration of `context`, or of the file's current context.
pub(super) fn read(path: &Path, context: Option<&str>) -> Result<Config, Error> {
    let fail = |why: String| Error::Kubeconfig { path: path.to_path_buf(), why };
    let text = fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    let base = path.parent().unwrap_or(Path::new("."));
    parse(&text, context, base).map_err(fail)
}

fn parse(text: &str, context: Option<&str>, base: &Path) -> Result<Config, String> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let wanted = context.unwrap_or(&file.current_context);
    let missing = |what: &str, name: &str| format!("there is no {what} {name:?}");
    let context = file.contexts.iter().find(|entry| entry.name == wanted);
    let context = &context.ok_or_else(|| missing("context", wanted))?.context;
    let cluster = file.clusters.into_iter().find(|entry| entry.name == context.cluster);
    let cluster = cluster.ok_or_else(|| missing("cluster", &context.cluster))?.cluster;
    let user = file.users.into_iter().find(|entry| entry.name == context.user);
    let user = user.ok_or_else(|| missing("user", &context.user))?.user;
    if cluster.insecure_skip_tls_verify {
        return Err("insecure-skip-tls-verify is not supported".into());
    }
    let ca = cluster.certificate_authority_data.as_deref();
    let ca = material(base, ca, cluster.certificate_authority.as_deref())?
        .ok_or("the cluster has no certificate-authority")?;
    let cert = user.client_certificate_data.as_deref();
    let cert = material(base, cert, user.client_certificate.as_deref())?;
    let key = material(base, user.client_key_data.as_deref(), user.client_key.as_deref())?;
    let mut config = Config::new(servers(&cluster), Trust::Fixed(ca));
    config.own = cert.zip(key).map(|(certificate, key)| Identity::Fixed { certificate, key });
    config.token = user.token;
    config.server_name = cluster.tls_server_name;
    Ok(config)
}

/// `server` first, then what the extension lists.
fn servers(cluster: &Cluster) -> Vec<String> {
    let mut servers = vec![cluster.server.clone()];
    let extension = cluster.extensions.iter().find(|entry| entry.name == SERVERS_EXTENSION);
    let listed = extension.and_then(|entry| entry.extension.get("servers")?.as_array());
    for server in listed.into_iter().flatten().filter_map(|server| server.as_str()) {
        if !servers.iter().any(|known| known == server) {
            servers.push(server.to_string());
        }
    }
    servers
}

/// PEM given inline as base64, or as a file beside the kubeconfig.
fn material(
    base: &Path,
    data: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Vec<u8>>, String> {
    if let Some(data) = data {
        let decoded = base64::engine::general_purpose::STANDARD.decode(data.trim());
        return decoded.map(Some).map_err(|error| format!("inline certificate data: {error}"));
    }
    let Some(file) = file else { return Ok(None) };
    let path = base.join(file);
    fs::read(&path).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
apiVersion: v1
kind: Config
current-context: dev
contexts:
- {name: dev, context: {cluster: c, user: admin, namespace: default}}
- {name: broken, context: {cluster: gone, user: admin}}
clusters:
- name: c
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: Y2E=
    extensions:
    - name: coxswain
      extension: {servers: ['https://127.0.0.1:6443', 'https://127.0.0.1:6444']}
users:
- {name: admin, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}
";

    #[test]
    fn a_context_names_its_servers_and_credentials() {
        let config = parse(FILE, None, Path::new("/")).unwrap();
        assert_eq!(config.masters, ["https://127.0.0.1:6443", "https://127.0.0.1:6444"]);
        assert!(matches!(config.believed, Trust::Fixed(ca) if ca == b"ca"));
        let Some(Identity::Fixed { certificate, key }) = config.own else {
            panic!("no certificate")
        };
        assert_eq!((certificate, key), (b"cert".to_vec(), b"key".to_vec()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let why = |context| parse(FILE, Some(context), Path::new("/")).err().unwrap();
        assert_eq!(why("prod"), "there is no context \"prod\"");
        assert_eq!(why("broken"), "there is no cluster \"gone\"");
    }
}
