//! `coxswain token`: what a new master joins with. kubeadm's scheme: a bootstrap token in a Secret
//! of kube-system, which ends by itself, and the hash of the cluster's CA, in one word.

use super::{
    client::{Connection, Target, refused},
    members, output,
};
use crate::pki;
use ::chaos::scenario::duration;
use anyhow::{Context, Result};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// Who holds a token with this group may join as a master (RBAC role `coxswain:join-master`).
const MASTERS_GROUP: &str = "system:bootstrappers:coxswain:masters";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Tokens that new masters join with
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Make a token and print the command that joins a new master with it
    Create {
        /// How long it is good
        #[arg(long, default_value = "2h", value_parser = duration)]
        ttl: Duration,

        /// Kubeconfig of the cluster (default: $KUBECONFIG, then ~/.kube/config)
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

/// `ID.SECRET.HASH`: whom the masters know the new one by, and it them.
#[derive(Clone)]
pub(super) struct JoinToken {
    id: String,
    pub(super) secret: String,
    /// Of the public key of the cluster's CA.
    pub(super) ca_hash: [u8; 32],
}

impl JoinToken {
    /// What the API takes for a bootstrap token.
    pub(super) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, pki::hex(&self.ca_hash))
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<JoinToken, String> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [id, secret, hash] = parts[..] else {
            return Err("want ID.SECRET.HASH, as `coxswain token create` prints it".into());
        };
        let ca_hash = pki::parse_hex(hash).ok_or("its last part is no hash of 64 digits")?;
        Ok(JoinToken { id: id.into(), secret: secret.into(), ca_hash })
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args::Create { ttl, kubeconfig } = args;
    let target = Target::from_kubeconfig(kubeconfig.as_deref())?;
    output::say(&create(&target, ttl, "coxswain token create").await?);
    Ok(())
}

/// Makes a token; the command line that joins with it.
pub(super) async fn create(target: &Target, ttl: Duration, why: &str) -> Result<String> {
    let masters = members::ask(target).await?;
    let leads = |member: &&Value| member["leader"] == true;
    let answers = |member: &&Value| member["reachable"] == true;
    let master = masters.iter().find(leads).or_else(|| masters.iter().find(answers));
    let master = master.context("no master answers")?;
    let address = master["apiAddress"].as_str().context("the master does not say where it is")?;
    let (id, secret) = (random(ID_CHARS), random(SECRET_CHARS));
    let end = jiff::Timestamp::now() + jiff::SignedDuration::try_from(ttl)?;
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "stringData": {
            "description": format!("for a new master ({why})"),
            "token-id": id,
            "token-secret": secret,
            "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": MASTERS_GROUP,
        },
    });
    let mut connection = Connection::to_any(target).await?;
    let (code, body) =
        connection.call(http::Method::POST, SECRETS, object.to_string().into()).await?;
    if code != 201 {
        return Err(refused(SECRETS, code, &body));
    }
    let token = JoinToken { id, secret, ca_hash: target.ca_hash };
    Ok(format!(
        "coxswain server --join https://{address} --token {token} \\\n  --name NAME \
         --data-dir DIRECTORY --pki DIRECTORY --listen ADDRESS:6443 --peer-address ADDRESS:2380"
    ))
}

/// Lower-case letters and digits, as kubeadm has them.
fn random(chars: usize) -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..chars).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_printed() {
        let token = JoinToken { id: random(6), secret: random(16), ca_hash: [0xa5; 32] };
        let read: JoinToken = token.to_string().parse().expect("what was printed");
        assert_eq!(read.bearer(), token.bearer());
        assert_eq!((read.secret.len(), read.ca_hash), (16, token.ca_hash));
        for wrong in ["", "a.b", "abcdef.0123456789abcdef", "a.b.c", &format!("a.b.{:064}.d", 0)] {
            assert!(wrong.parse::<JoinToken>().is_err(), "{wrong}");
        }
    }
}
