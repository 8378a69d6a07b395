//! How a master comes into a cluster that is there: it asks a master it is told of, whose CA it
//! knows by its hash, and is given its id and the cluster's keys. Done once; what must be remembered
//! lies in the data directory, so that the same command line starts it again.

use super::{
    client::Connection,
    pinned::{pinned, with_scheme},
    server::Member,
    token::JoinToken,
};
use crate::pki::{self, MasterNames, write_private};
use anyhow::{Context, Result, bail};
use raft_store::{MemberId, Peer, Store, durable};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// In the data directory: who this master is, and the masters it was told of.
const JOINED: &str = "joined.json";
/// How long a master is given to let this one in: an election may be on.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at whether this master votes yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// After so many looks it is said again that nobody has reached this master.
const QUIET_TICKS: u32 = 20;
/// What every master of a cluster has alike.
const SHARED: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "peer-ca.crt",
    "peer-ca.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "sa.key",
    "secrets.key",
];

#[derive(clap::Args)]
pub(super) struct JoinArgs {
    /// Join the cluster of the master whose API is at this URL, instead of --initial-members;
    /// `coxswain token create` prints the line. Once joined, neither it nor the token is looked at again
    #[arg(long, conflicts_with = "initial_members")]
    join: Option<String>,

    /// Token to join with, as `coxswain token create` prints it
    #[arg(long, env = "COXSWAIN_JOIN_TOKEN", hide_env_values = true)]
    token: Option<JoinToken>,

    /// Where other masters reach this one when it has joined: ADDRESS:PORT
    #[arg(long)]
    peer_address: Option<SocketAddr>,

    /// Where clients reach this one when it has joined: ADDRESS:PORT (default: the first --listen)
    #[arg(long)]
    api_address: Option<SocketAddr>,
}

/// Who this master is.
pub(super) struct Own<'a> {
    pub(super) name: &'a str,
    pub(super) data_dir: &'a Path,
    pub(super) pki: &'a Path,
    /// Where it serves the API.
    pub(super) listen: &'a [String],
    pub(super) service_cidr: &'a str,
}

/// This master's id and all members it knows of, itself among them; asks for them the first time.
pub(super) async fn members(args: &JoinArgs, own: &Own<'_>) -> Result<(u64, Vec<Member>)> {
    let this = own_peer(args, own)?;
    let answer = match remembered(own.data_dir)? {
        Some(answer) => answer,
        None => {
            let answer = ask(args, own, &this).await?;
            remember(own.data_dir, &answer)?;
            answer
        }
    };
    all(&answer, this)
}

/// What the masters answered when they let this one in; `None`: it has not joined.
pub(super) fn remembered(data_dir: &Path) -> Result<Option<Value>> {
    recall(data_dir, JOINED)
}

pub(super) fn remember(data_dir: &Path, answer: &Value) -> Result<()> {
    note(data_dir, JOINED, answer)
}

/// What a file in the data directory holds; `None`: there is none.
pub(super) fn recall<T: DeserializeOwned>(data_dir: &Path, name: &str) -> Result<Option<T>> {
    let path = data_dir.join(name);
    match fs::read(&path) {
        Ok(text) => {
            let value = serde_json::from_slice(&text);
            Ok(Some(value.with_context(|| format!("{} is damaged", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// On return it is on disk.
pub(super) fn note<T: Serialize>(data_dir: &Path, name: &str, value: &T) -> Result<()> {
    let text = serde_json::to_string(value)?;
    fs::create_dir_all(data_dir)
        .and_then(|()| durable::write(data_dir, name, &text))
        .with_context(|| format!("cannot write {}", data_dir.join(name).display()))
}

/// This master's id and all members that the answer names, and `this`.
pub(super) fn all(answer: &Value, this: Peer) -> Result<(u64, Vec<Member>)> {
    let id = answer["id"].as_u64().context("joined.json: no id")?;
    let mut members = vec![Member { id: MemberId(id), peer: this }];
    for member in answer["members"].as_array().into_iter().flatten() {
        let text = |field: &str| member[field].as_str().unwrap_or_default().to_string();
        let peer = Peer {
            name: text("name"),
            peer_address: text("peerAddress"),
            api_address: text("apiAddress"),
        };
        members.push(Member { id: MemberId(member["id"].as_u64().unwrap_or_default()), peer });
    }
    Ok((id, members))
}

fn own_peer(args: &JoinArgs, own: &Own) -> Result<Peer> {
    let first = own.listen.iter().find_map(|text| text.parse::<SocketAddr>().ok());
    let api = args.api_address.or(first.filter(|address| !address.ip().is_unspecified()));
    let api = api.context("name an --api-address: the --listen addresses are no one place")?;
    let peer = args.peer_address.context("a master that joins needs a --peer-address")?;
    Ok(Peer {
        name: own.name.to_string(),
        peer_address: peer.to_string(),
        api_address: api.to_string(),
    })
}

/// Asks to be let in, and writes the keys and certificates that this master works with.
async fn ask(args: &JoinArgs, own: &Own<'_>, this: &Peer) -> Result<Value> {
    let (Some(master), Some(token)) = (&args.join, &args.token) else {
        bail!("name the cluster: --initial-members for a new one, or --join and --token");
    };
    if own.data_dir.join("member").exists() {
        let directory = own.data_dir.display();
        bail!("{directory} holds the data of a member; empty it to join as a new one");
    }
    let server = with_scheme(master);
    let asked = tokio::time::timeout(JOIN_TIMEOUT, post(&server, token, this)).await;
    let (code, body) =
        asked.with_context(|| format!("{server}: no answer within {JOIN_TIMEOUT:?}"))??;
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let why = answer["message"].as_str().unwrap_or("no reason was given");
    match code {
        200 => {}
        401 => bail!(
            "{server}: the token is unknown or its time is over; make one with \
             `coxswain token create`"
        ),
        403 => bail!("{server}: the token is not one for masters: {why}"),
        _ => bail!("{server} lets {} not in: {why}", this.name),
    }
    let sealed = answer["sealed"].take();
    let bundle = apiserver::masters::open(&token.secret, sealed.as_str().unwrap_or_default());
    let bundle = bundle.context("the keys in the answer are not for this token")?;
    install(&bundle, own, this)?;
    tracing::info!(id = answer["id"].as_u64(), name = own.name, "let in by {server}");
    Ok(answer)
}

async fn post(server: &str, token: &JoinToken, this: &Peer) -> Result<(u16, bytes::Bytes)> {
    let mut connection = Connection::open(server, pinned(token.ca_hash)?).await?;
    connection.bearer = Some(token.bearer());
    let body = json!({
        "name": this.name,
        "peerAddress": this.peer_address,
        "apiAddress": this.api_address,
    });
    connection.call(http::Method::POST, "/coxswain/members/join", body.to_string().into()).await
}

/// Says how far this master is, until it votes: why it does not may be with the others only.
pub(super) async fn follow(store: Store) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    let (mut said, mut quiet) = (Said::Nothing, 0);
    loop {
        tick.tick().await;
        let members = store.members();
        let own = members.iter().find(|member| member.id == store.member());
        let now = match own {
            Some(own) if own.voter => Said::Votes,
            Some(_) => Said::CatchingUp,
            None => Said::Nothing,
        };
        quiet = if now == Said::Nothing { quiet + 1 } else { 0 };
        if quiet % QUIET_TICKS == QUIET_TICKS - 1 {
            tracing::warn!("no master has reached this one at its --peer-address yet");
        }
        if now != said {
            said = now;
            match said {
                Said::Votes => tracing::info!("this master has caught up, and votes"),
                Said::CatchingUp => tracing::info!("this master is in the cluster and catches up"),
                Said::Nothing => {}
            }
        }
        if said == Said::Votes {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Said {
    Nothing,
    CatchingUp,
    Votes,
}

/// What a new master is given by this one; `None` if it does not have all of it itself.
pub(super) fn bundle(pki: &Path) -> Result<Option<Arc<[u8]>>> {
    let mut files = BTreeMap::new();
    for name in SHARED {
        match fs::read_to_string(pki.join(name)) {
            Ok(text) => files.insert(name, text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
    }
    Ok(Some(serde_json::to_vec(&files)?.into()))
}

/// Writes the shared keys, and certificates of this master's own signed with them.
fn install(bundle: &[u8], own: &Own, this: &Peer) -> Result<()> {
    let files: BTreeMap<String, String> = serde_json::from_slice(bundle)?;
    fs::create_dir_all(own.pki).with_context(|| format!("cannot create {}", own.pki.display()))?;
    for name in SHARED {
        let text = files.get(name).with_context(|| format!("the answer lacks {name}"))?;
        write_private(&own.pki.join(name), text)?;
    }
    let address = |text: &str| text.parse::<SocketAddr>().map(|address| address.ip());
    let listening = own.listen.iter().filter_map(|text| address(text).ok());
    let mut addresses: Vec<IpAddr> = listening.filter(|ip| !ip.is_unspecified()).collect();
    addresses.extend([address(&this.peer_address)?, address(&this.api_address)?]);
    addresses.extend(pki::first_address(own.service_cidr));
    addresses.sort();
    addresses.dedup();
    pki::issue_master(
        own.pki,
        &MasterNames { name: own.name, addresses: &addresses },
        pki::CERTIFICATE_LIFE,
    )
}

/// What to do with a directory of a member that was removed.
pub(super) fn how_to_come_back(data_dir: &Path) -> String {
    let directory = data_dir.display();
    format!(
        "to bring this machine back as a new member: empty {directory}, run `coxswain token create` \
         where you have a kubeconfig, and start with the line it prints"
    )
}
