//! `coxswain restore`: from a backup to the data directory of the first master of a new cluster.

use super::{backup, output};
use anyhow::{Context as _, Result, bail};
use apiserver::Keyring;
use raft_store::{
    MemberId, Peer, Revision,
    backup::{Header, Restored, Restoring, restore},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Build the data directory of the first master of a new cluster from a backup
#[derive(clap::Args)]
pub(super) struct Args {
    /// A file, or s3://BUCKET/PREFIX/NAME; what it continues is looked for beside it
    backup: String,

    /// What to build; must not exist, or be empty
    #[arg(long)]
    data_dir: PathBuf,

    /// The state as of this revision (default: the newest in the backup)
    #[arg(long)]
    revision: Option<u64>,

    /// Which master this is: its id and addresses are taken from the backup unless given here
    /// (default: the only one, or the first)
    #[arg(long)]
    name: Option<String>,

    /// Raft id of this master
    #[arg(long)]
    id: Option<u64>,

    /// Where other masters will reach it: ADDRESS:PORT
    #[arg(long)]
    peer_address: Option<String>,

    /// Where its API will be reached: ADDRESS:PORT
    #[arg(long)]
    api_address: Option<String>,

    /// secrets.key of the cluster, to see now whether it opens what is sealed in the backup
    #[arg(long)]
    secrets_key: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<()> {
    let one = backup::one(&args.backup)?;
    let (files, missing) = backup::files(&one).await?;
    if let Some(why) = missing {
        bail!("{}: {why}", one.file);
    }
    let header = one.shelf.header(&one.file).await?;
    if let Some(path) = &args.secrets_key {
        check_keys(path, &header)?;
    }
    let (member, peer) = member(&args, &header)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let restoring = Restoring {
        data_dir: args.data_dir.clone(),
        revision: args.revision.map(Revision),
        member,
        peer: peer.clone(),
        now,
    };
    let begun = Instant::now();
    let shelf = one.shelf.clone();
    let work = move || -> Result<Restored> {
        let (mut chain, _) = backup::open(&shelf, &files)?;
        Ok(restore(&mut chain, &restoring, backup::watcher())?)
    };
    let restored = tokio::task::spawn_blocking(work).await??;
    report(&args, &header, &restored, member, &peer, begun.elapsed().as_secs_f64());
    Ok(())
}

fn check_keys(path: &Path, header: &Header) -> Result<()> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let keyring =
        Keyring::parse(&text, &[]).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?;
    let has = keyring.ids();
    match header.keys.iter().find(|key| !has.contains(key)) {
        Some(key) => bail!("{} does not have key {key}, which the backup needs", path.display()),
        None => Ok(()),
    }
}

/// Who the restored master is.
fn member(args: &Args, header: &Header) -> Result<(MemberId, Peer)> {
    let known = match &args.name {
        Some(name) => header.members.iter().find(|member| member.peer.name == *name),
        None => header.members.first(),
    };
    let given = |value: &Option<String>, known: Option<&str>, flag: &str| {
        let value = value.clone().or_else(|| known.map(str::to_string));
        value.with_context(|| format!("the backup does not know this master: give --{flag}"))
    };
    let peer = known.map(|member| &member.peer);
    let id = args.id.or(known.map(|member| member.id.0));
    let id = id.context("the backup does not know this master: give --id")?;
    let peer = Peer {
        name: given(&args.name, peer.map(|peer| peer.name.as_str()), "name")?,
        peer_address: given(
            &args.peer_address,
            peer.map(|peer| peer.peer_address.as_str()),
            "peer-address",
        )?,
        api_address: given(
            &args.api_address,
            peer.map(|peer| peer.api_address.as_str()),
            "api-address",
        )?,
    };
    Ok((MemberId(id), peer))
}

fn report(
    args: &Args,
    header: &Header,
    restored: &Restored,
    id: MemberId,
    peer: &Peer,
    seconds: f64,
) {
    let Restored { cluster, state_of, revision, objects } = restored;
    let directory = args.data_dir.display();
    let Peer { name, peer_address, api_address } = peer;
    output::say(&format!(
        "{objects} objects as of revision {state_of} are in {directory}, in {seconds:.1} s"
    ));
    output::say(&format!("this is cluster {cluster}; revisions go on at {revision}"));
    if !header.keys.is_empty() {
        output::say(&format!("its secrets.key must have {}", header.keys.join(", ")));
    }
    output::say(&format!(
        "start it: coxswain server --name {name} --id {id} --data-dir {directory} \
         --initial-members {id}={name}={peer_address}={api_address} … as before"
    ));
    output::say(
        "the other masters are of the old cluster: stop them, remove their data directories, and let \
         them join with what `coxswain token create` prints",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_store::{Cluster, backup::Member};

    fn header() -> Header {
        let peer = |n: u64| Peer {
            name: format!("m{n}"),
            peer_address: format!("10.0.0.{n}:2380"),
            api_address: format!("10.0.0.{n}:6443"),
        };
        Header {
            id: "a".into(),
            cluster: Cluster { id: "c".into(), epoch: 1 },
            program: "0".into(),
            feature_level: 1,
            taken_at: 0,
            member: MemberId(1),
            confirmed: true,
            base: None,
            oldest: Revision(0),
            revision: Revision(3),
            members: [4, 5].map(|n| Member { id: MemberId(n), voter: true, peer: peer(n) }).into(),
            keys: vec!["0123".into()],
        }
    }

    fn args(name: Option<&str>) -> Args {
        Args {
            backup: String::new(),
            data_dir: PathBuf::new(),
            revision: None,
            name: name.map(str::to_string),
            id: None,
            peer_address: None,
            api_address: None,
            secrets_key: None,
        }
    }

    #[test]
    fn a_master_is_who_the_backup_says_unless_told_otherwise() {
        let (id, peer) = member(&args(Some("m5")), &header()).expect("known");
        assert_eq!((id, peer.peer_address.as_str()), (MemberId(5), "10.0.0.5:2380"));
        assert_eq!(member(&args(None), &header()).expect("the first").0, MemberId(4));
        let stranger = member(&args(Some("m9")), &header()).expect_err("unknown");
        assert!(stranger.to_string().contains("give --id"), "{stranger}");
        let told = Args {
            id: Some(9),
            peer_address: Some("10.0.0.9:2380".into()),
            api_address: Some("10.0.0.9:6443".into()),
            ..args(Some("m9"))
        };
        let (id, peer) = member(&told, &header()).expect("told");
        assert_eq!((id, peer.name.as_str()), (MemberId(9), "m9"));
    }
}
