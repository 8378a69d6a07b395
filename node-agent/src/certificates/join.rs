//! The first client certificate, asked for with a bootstrap token, as a kubelet does with a bootstrap
//! kubeconfig.

use super::{
    Place, Wanted,
    files::{Facts, write_private},
    obtain::{self, obtain},
    renewal::text,
};
use crate::{
    Config,
    client::{self, Client},
    credentials,
};
use jiff::Timestamp;
use k8s::{Api, Request, Resource};
use serde_json::Value;
use std::{fs, io, path::PathBuf, sync::Arc};

const NODES: Resource = Resource::new("", "v1", "nodes");
const NEW_TOKEN: &str = "run `coxswain token create --node` where there is a kubeconfig";

/// What an agent has to prove itself with to the masters.
#[derive(Debug, PartialEq)]
pub enum Standing {
    Good,
    Missing,
    /// Why, in words.
    Unusable(String),
}

/// Why a node is not let in.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the token is unknown or its time is over; {NEW_TOKEN}")]
    Token,
    #[error("the token is not one for nodes ({0}); {NEW_TOKEN}")]
    NotForNodes(String),
    #[error(
        "there is a node {0} already, and it is Ready: give this one another --name. If this is that \
         node with an empty disk, delete the old one first (`kubectl delete node {0}`), or wait until it \
         counts as silent"
    )]
    NameTaken(String),
    #[error("no master answers: {0}")]
    Unreachable(String),
    #[error("cannot reach the masters")]
    Client(#[from] client::Error),
    #[error("cannot write {path}")]
    Disk { path: PathBuf, source: io::Error },
    #[error("no client certificate")]
    Certificate(#[source] obtain::Error),
}

/// Looks at the client certificate of `config`.
pub fn standing(config: &Config) -> io::Result<Standing> {
    let place = place(config);
    place.heal()?;
    let read = |path| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    };
    let (Some(cert), Some(key)) = (read(&place.cert)?, read(&place.key)?) else {
        return Ok(Standing::Missing);
    };
    let wanted = Wanted::client(&config.node_name);
    let usable = credentials::certified(&cert, &[], &key).map_err(|error| error.to_string());
    let why = match (usable, Facts::of(&cert)) {
        (Err(why), _) => why,
        (Ok(_), None) => "it cannot be read".to_string(),
        (Ok(_), Some(facts)) if !wanted.is_met_by(&facts) => {
            format!("it is of {}, not of node {}", facts.common_name, config.node_name)
        }
        (Ok(_), Some(facts)) if facts.until <= Timestamp::now().as_second() => {
            format!("it ended at {}", text(facts.until))
        }
        _ => return Ok(Standing::Good),
    };
    Ok(Standing::Unusable(why))
}

/// Gets a client certificate with a bootstrap token (`ID.SECRET`) from masters whose authority is known
/// to be `ca`, and writes what an agent starts with.
pub async fn join(config: &Config, ca: &str, token: &str) -> Result<(), JoinError> {
    let place = place(config);
    let mut dialling = client::Config::new(config.masters.clone(), client::Trust::Fixed(ca.into()));
    dialling.token = Some(token.into());
    let client = Client::new(dialling)?;
    let wanted = Wanted::client(&config.node_name);
    let known = fs::read(&place.cert).ok().and_then(|cert| Facts::of(&cert));
    // It was that node before: it may still count as Ready.
    if !known.is_some_and(|facts| wanted.is_met_by(&facts)) {
        refuse_a_name_in_use(&client, &config.node_name).await?;
    }
    let disk = |path: &PathBuf| {
        let path = path.clone();
        |source| JoinError::Disk { path, source }
    };
    if let Some(directory) = config.ca.parent() {
        fs::create_dir_all(directory).map_err(disk(&config.ca))?;
    }
    // Before the certificate, which says that nothing is missing.
    write_private(&config.ca, ca).map_err(disk(&config.ca))?;
    let clock: super::Clock = Arc::new(Timestamp::now);
    match obtain(&client, &wanted, &place, &clock).await {
        Ok(facts) => {
            let until = text(facts.until);
            tracing::info!(
                node = config.node_name,
                until,
                "let in: the client certificate is here"
            );
            Ok(())
        }
        Err(obtain::Error::Refused(status)) => Err(match status.code {
            401 => JoinError::Token,
            403 => JoinError::NotForNodes(status.message),
            503 | 504 => JoinError::Unreachable(status.message),
            _ => JoinError::Certificate(obtain::Error::Refused(status)),
        }),
        Err(error) => Err(JoinError::Certificate(error)),
    }
}

/// Two machines of one name would fight over its pods. kubeadm looks the same way.
async fn refuse_a_name_in_use(client: &Client, name: &str) -> Result<(), JoinError> {
    match client.call(Request::get(NODES, "", name)).await {
        Ok(node) => {
            let conditions = node.at("/status/conditions").and_then(Value::as_array);
            let ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            match conditions.into_iter().flatten().any(ready) {
                true => Err(JoinError::NameTaken(name.into())),
                false => Ok(()),
            }
        }
        Err(status) if status.code == 401 => Err(JoinError::Token),
        Err(status) if matches!(status.code, 503 | 504) => {
            Err(JoinError::Unreachable(status.message))
        }
        // There is none, or this token may not look: then nobody can tell.
        Err(_) => Ok(()),
    }
}

pub(crate) fn place(config: &Config) -> Place {
    Place { cert: config.client_cert.clone(), key: config.client_key.clone() }
}
