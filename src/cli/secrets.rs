//! `coxswain secrets`: what is hidden at rest, and with which key.

use super::{
    client::{Connection, Target, refused},
    output,
};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Encryption of Secrets at rest
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Make a new key and write every Secret again with it; safe at any time, and to repeat
    RotateKey {
        /// Cluster and user; without it $KUBECONFIG or ~/.kube/config
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args::RotateKey { kubeconfig } = args;
    let target = Target::from_kubeconfig(kubeconfig.as_deref())?;
    let mut connection = Connection::to_any(&target).await?;
    let made = post(&mut connection, "/coxswain/secrets/rotate-key").await?;
    output::say(&format!("key {} seals from now on", made["key"]));
    loop {
        let left = post(&mut connection, "/coxswain/secrets/reseal").await?;
        match left["left"].as_u64() {
            Some(0) => break,
            Some(left) => output::say(&format!("{left} secrets to be written again")),
            None => bail!("an answer without the number that is left: {left}"),
        }
    }
    output::say("every secret is sealed with the new key; older ones stay for history and backups");
    Ok(())
}

async fn post(connection: &mut Connection, path: &str) -> Result<serde_json::Value> {
    let (code, body) = connection.call(http::Method::POST, path, Vec::new()).await?;
    let value =
        serde_json::from_slice(&body).with_context(|| format!("{path}: {code} and no JSON"))?;
    match code {
        200 => Ok(value),
        _ => Err(refused(path, code, &body)),
    }
}
