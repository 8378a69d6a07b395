//! A master whose disk no longer holds what it acknowledged. What is left of it must never be served or
//! vote, but the other masters hold everything: they remove this one, it joins them under a new id, and
//! begins with an empty disk. Nobody is asked; the others decide whether they can do without it meanwhile.

use super::{
    client::{self, Target},
    joining,
    members::{self, Changed},
    server::Member,
};
use crate::pki::{Authority, Purpose};
use anyhow::{Context, Result, bail};
use raft_store::{Peer, durable};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

/// In the data directory while it is being rebuilt: a [`Record`].
const RECORD: &str = "rebuilding.json";
/// In the data directory: the damaged file, kept to find out why.
const EVIDENCE: &str = "damaged";
/// How long what this master shows for itself meanwhile is good.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// RBAC lets this group do what is done here (role `coxswain:rebuild-master`), and nothing else.
const GROUP: &str = "coxswain:masters";
/// Between two tries: the others may have no leader, or not be enough without this one.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How far it has come, so that an interrupted start goes on and does not begin again.
#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Record {
    /// The id whose data is damaged; it may be removed by now.
    old: u64,
    /// What the others answered when they let this master in again.
    joined: Option<Value>,
}

/// A master that cannot start as it is.
pub(super) struct Damaged<'a> {
    pub(super) id: u64,
    pub(super) peer: &'a Peer,
    pub(super) data_dir: &'a Path,
    pub(super) pki: &'a Path,
    /// All that are known.
    pub(super) members: &'a [Member],
}

/// Rebuilds the data directory as that of a new member, however long the others take to be there. Done
/// at once where nobody else is known: then there is nobody to rebuild from.
pub(super) async fn rebuild(damaged: &Damaged<'_>, file: &Path) -> Result<()> {
    let others =
        damaged.members.iter().filter(|it| it.peer.api_address != damaged.peer.api_address);
    let servers: Vec<String> =
        others.map(|it| format!("https://{}", it.peer.api_address)).collect();
    if servers.is_empty() {
        bail!(
            "no other master is known that it could be rebuilt from: `coxswain restore` a backup"
        );
    }
    let target = target(damaged, servers)?;
    let name = &damaged.peer.name;
    tracing::warn!(
        name, file = %file.display(),
        "the disk does not hold what was acknowledged; this master is rebuilt from the others"
    );
    let mut said = String::new();
    let joined = loop {
        match step(damaged, &target).await? {
            Ok(Some(joined)) => break joined,
            Ok(None) => continue,
            Err(why) if why != said => {
                tracing::warn!(why, "not rebuilt yet; it is tried until the other masters agree");
                said = why;
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    };
    tracing::info!(id = joined["id"].as_u64(), name, "let in again, as a new member");
    write(damaged.data_dir, &Record { old: damaged.id, joined: Some(joined) })?;
    keep(damaged.data_dir, file);
    finish(damaged.data_dir)
}

/// If the directory is to be that of a new member, it is on return.
pub(super) fn finish(data_dir: &Path) -> Result<()> {
    let Some(Record { joined: Some(joined), .. }) = read(data_dir)? else { return Ok(()) };
    // Remembered when everything else was gone: what is there by now may be the new member's.
    if joining::remembered(data_dir)?.as_ref() != Some(&joined) {
        raft_store::discard(data_dir)
            .with_context(|| format!("cannot empty {}", data_dir.display()))?;
        joining::remember(data_dir, &joined)?;
    }
    let record = data_dir.join(RECORD);
    durable::remove(data_dir, RECORD).with_context(|| format!("cannot remove {}", record.display()))
}

fn read(data_dir: &Path) -> Result<Option<Record>> {
    joining::recall(data_dir, RECORD)
}

fn write(data_dir: &Path, record: &Record) -> Result<()> {
    joining::note(data_dir, RECORD, record)
}

/// Asks the others for the next thing that must happen; what they answered when this master is let in,
/// or why it is not done now. An error is for good.
async fn step(damaged: &Damaged<'_>, target: &Target) -> Result<Result<Option<Value>, String>> {
    let members = match members::ask(target).await {
        Ok(members) => members,
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    let begun = read(damaged.data_dir)?.is_some_and(|record| record.old == damaged.id);
    let (method, path, body) = match next(damaged, begun, &members) {
        Next::Remove => {
            // Before it is asked for: what is removed without this was removed by somebody else.
            write(damaged.data_dir, &Record { old: damaged.id, joined: None })?;
            (http::Method::DELETE, format!("/coxswain/members/{}", damaged.id), Value::Null)
        }
        Next::Join => {
            let Peer { name, peer_address, api_address } = damaged.peer;
            let body = json!({
                "name": name, "peerAddress": peer_address, "apiAddress": api_address,
            });
            (http::Method::POST, "/coxswain/members/join".to_owned(), body)
        }
        Next::Never(why) => {
            bail!("{why}; {}", joining::how_to_come_back(damaged.data_dir));
        }
    };
    let joins = method == http::Method::POST;
    Ok(match members::change(target, method, &path, &body).await {
        Ok(Changed::Done(answer)) => Ok(joins.then_some(answer)),
        Ok(Changed::Refused(why)) => Err(why),
        Ok(Changed::Unknown(error)) | Err(error) => Err(format!("{error:#}")),
    })
}

/// What must happen next.
#[derive(Debug, PartialEq)]
enum Next {
    Remove,
    Join,
    /// Somebody else has decided about this master: for this reason.
    Never(String),
}

/// `begun`: this master is about to be rebuilt, so that its being removed was its own doing.
fn next(damaged: &Damaged, begun: bool, members: &[Value]) -> Next {
    let (id, name) = (damaged.id, &damaged.peer.name);
    if members.iter().any(|member| members::id(member) == id) {
        return Next::Remove;
    }
    let successor = members.iter().find(|member| members::name(member) == name);
    match successor {
        // One that does not vote is this one, let in by a try that did not hear of it.
        Some(it) if it["voter"] == true || it["peerAddress"] != *damaged.peer.peer_address => {
            Next::Never(format!("{name} was replaced: it is member {} now", members::id(it)))
        }
        None if !begun => Next::Never(format!("member {id} ({name}) was removed")),
        _ => Next::Join,
    }
}

/// The others, to whom this master proves itself with a certificate that it signs for the occasion: who
/// has the authority's key could sign any.
fn target(damaged: &Damaged, servers: Vec<String>) -> Result<Target> {
    let name = &damaged.peer.name;
    let ca = Authority::read(damaged.pki, "ca").with_context(|| {
        format!("without it {name} cannot be rebuilt by itself: `coxswain replace {name}`")
    })?;
    let user = format!("coxswain:master:{name}");
    let own = ca.issue_for(&Purpose::Client { user: &user, group: GROUP }, CERTIFICATE_LIFE)?;
    let text = ca.pair.cert.as_bytes();
    let tls = client::client_tls(text, own.cert.as_bytes(), own.key.as_bytes())?;
    Ok(Target { servers, tls, ca: text.to_vec(), cert: own.cert.into() })
}

/// The damaged file stays as long as it does no harm; of a directory too much would.
fn keep(data_dir: &Path, file: &Path) {
    let evidence = data_dir.join(EVIDENCE);
    let Some(name) = file.file_name().filter(|_| file.is_file()) else { return };
    let kept = fs::create_dir_all(&evidence).and_then(|()| fs::rename(file, evidence.join(name)));
    match kept {
        Ok(()) => tracing::info!(file = %evidence.join(name).display(), "the damaged file is kept"),
        Err(error) => tracing::warn!(%error, file = %file.display(), "cannot keep what is damaged"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "m2";

    fn peer() -> Peer {
        let address = |port: u16| format!("10.0.0.2:{port}");
        Peer { name: NAME.into(), peer_address: address(2380), api_address: address(6443) }
    }

    fn next_of(begun: bool, members: Value) -> Next {
        let (peer, nowhere) = (peer(), Path::new(""));
        let (data_dir, pki) = (nowhere, nowhere);
        let damaged = Damaged { id: 2, peer: &peer, data_dir, pki, members: &[] };
        next(&damaged, begun, members.as_array().expect("a list"))
    }

    fn member(id: u64, name: &str, voter: bool, host: u8) -> Value {
        let peer_address = format!("10.0.0.{host}:2380");
        json!({ "id": id, "name": name, "voter": voter, "peerAddress": peer_address })
    }

    #[test]
    fn a_damaged_member_is_removed_and_joins() {
        let others = [member(1, "m1", true, 1), member(3, "m3", true, 3)];
        let with = |more: Value| json!([others[0], others[1], more]);
        assert_eq!(next_of(false, with(member(2, NAME, true, 2))), Next::Remove);
        assert_eq!(next_of(true, with(member(2, NAME, true, 2))), Next::Remove);
        assert_eq!(next_of(true, json!(others)), Next::Join);
        // Let in by a try whose answer was lost.
        assert_eq!(next_of(true, with(member(4, NAME, false, 2))), Next::Join);
    }

    #[test]
    fn what_somebody_else_decided_stays() {
        let never = |next: Next| match next {
            Next::Never(why) => why,
            other => panic!("{other:?}"),
        };
        let alone = member(1, "m1", true, 1);
        assert!(never(next_of(false, json!([alone]))).contains("was removed"));
        for begun in [false, true] {
            for successor in [member(4, NAME, true, 2), member(4, NAME, false, 9)] {
                let why = never(next_of(begun, json!([alone, successor])));
                assert!(why.contains("was replaced: it is member 4"), "{why}");
            }
        }
    }

    /// The data directory of a member, damaged, when the others have let it in as a new one.
    fn let_in(joined: &Value) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("log")).expect("made");
        durable::write(directory.path(), "member", "2").expect("written");
        let record = Record { old: 2, joined: Some(joined.clone()) };
        write(directory.path(), &record).expect("written");
        directory
    }

    #[test]
    fn a_start_that_was_interrupted_goes_on_and_takes_nothing_of_the_new_member() {
        let joined = json!({ "id": 4, "members": [] });
        let directory = let_in(&joined);
        let at = |name: &str| directory.path().join(name);
        finish(directory.path()).expect("emptied");
        assert_eq!(joining::remembered(directory.path()).expect("read"), Some(joined.clone()));
        assert!(!at("member").exists() && !at("log").exists() && !at(RECORD).exists());
        // The power was cut before the record was gone for good, and the new member has begun.
        durable::write(directory.path(), "member", "4").expect("written");
        write(directory.path(), &Record { old: 2, joined: Some(joined) }).expect("written");
        finish(directory.path()).expect("nothing to empty");
        assert!(at("member").exists() && !at(RECORD).exists());
    }

    #[test]
    fn nothing_is_emptied_before_the_others_have_let_it_in() {
        let directory = let_in(&Value::Null);
        write(directory.path(), &Record { old: 2, joined: None }).expect("written");
        finish(directory.path()).expect("nothing to do");
        assert!(directory.path().join("member").exists());
    }
}
