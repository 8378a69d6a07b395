//! `coxswain token`: what a new master or node joins with. kubeadm's scheme: a bootstrap token in a
//! Secret of kube-system, which ends by itself, and the hash of the cluster's CA, in one word.

use super::{
    client::{Connection, Target, refused},
    members, output, pinned,
};
use crate::{kubeconfig, pki};
use ::chaos::scenario::duration;
use anyhow::{Context, Result};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Tokens that new masters and nodes join with
#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// Make a token and print the command that joins a new master, or a new node, with it
    Create {
        /// For nodes instead of a master: several may join with it while it is good
        #[arg(long)]
        node: bool,

        /// Also write a bootstrap kubeconfig with the token to this file, for a real kubelet's
        /// --bootstrap-kubeconfig
        #[arg(long, requires = "node")]
        kubeconfig_out: Option<PathBuf>,

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
pub(crate) struct JoinToken {
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

/// What may be joined with a token.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Joiner {
    Master,
    Node,
}

impl Joiner {
    /// RBAC's word for it: `coxswain:join-master`, `coxswain:join-node` and what kubelets need.
    fn group(self) -> &'static str {
        match self {
            Joiner::Master => "system:bootstrappers:coxswain:masters",
            Joiner::Node => "system:bootstrappers:coxswain:nodes",
        }
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    let Args::Create { node, kubeconfig_out, ttl, kubeconfig } = args;
    let target = Target::from_kubeconfig(kubeconfig.as_deref())?;
    let why = "coxswain token create";
    if !node {
        output::say(&create(&target, ttl, why).await?);
        return Ok(());
    }
    let masters = addresses(&target).await?;
    let token = make(&target, Joiner::Node, ttl, why).await?;
    if let Some(path) = kubeconfig_out {
        let server = pinned::with_scheme(&masters[0]);
        let text = kubeconfig::of_bootstrapper(&target.ca, &server, &token.bearer());
        pki::write_private(&path, &text)?;
    }
    let masters = masters.join(",https://");
    output::say(&format!(
        "coxswain agent --join https://{masters} --token {token} \\\n  --name NAME \
         --address ADDRESS --data-dir DIRECTORY"
    ));
    Ok(())
}

/// Makes a token; the command line that joins a master with it.
pub(super) async fn create(target: &Target, ttl: Duration, why: &str) -> Result<String> {
    let masters = addresses(target).await?;
    let address = masters.first().context("no master answers")?;
    let token = make(target, Joiner::Master, ttl, why).await?;
    Ok(format!(
        "coxswain server --join https://{address} --token {token} \\\n  --name NAME \
         --data-dir DIRECTORY --pki DIRECTORY --listen ADDRESS:6443 --peer-address ADDRESS:2380"
    ))
}

/// Where the masters that answer serve the API, the leader first.
async fn addresses(target: &Target) -> Result<Vec<String>> {
    let mut masters = members::ask(target).await?;
    masters.retain(|member| member["leader"] == true || member["reachable"] == true);
    masters.sort_by_key(|member| member["leader"] != true);
    let address = |member: &Value| Some(member["apiAddress"].as_str()?.to_string());
    let known: Vec<String> = masters.iter().filter_map(address).collect();
    anyhow::ensure!(!masters.is_empty(), "no master answers");
    anyhow::ensure!(!known.is_empty(), "the masters do not say where they are");
    Ok(known)
}

pub(crate) async fn make(
    target: &Target,
    joiner: Joiner,
    ttl: Duration,
    why: &str,
) -> Result<JoinToken> {
    let ca_hash = pki::hash_of_pem(&target.ca)?;
    let (id, secret) = (random(ID_CHARS), random(SECRET_CHARS));
    let end = jiff::Timestamp::now() + jiff::SignedDuration::try_from(ttl)?;
    let for_whom = match joiner {
        Joiner::Master => "for a new master",
        Joiner::Node => "for new nodes",
    };
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
        "stringData": {
            "description": format!("{for_whom} ({why})"),
            "token-id": id,
            "token-secret": secret,
            "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": joiner.group(),
        },
    });
    let mut connection = Connection::to_any(target).await?;
    let (code, body) =
        connection.call(http::Method::POST, SECRETS, object.to_string().into()).await?;
    if code != 201 {
        return Err(refused(SECRETS, code, &body));
    }
    Ok(JoinToken { id, secret, ca_hash })
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
