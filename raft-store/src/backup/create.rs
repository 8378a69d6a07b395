//! A backup of a running member: its disk as it is at one moment, read and sent at the pace of
//! whoever takes it. Neither the log nor the state waits for it.

use super::{Base, Error, Header, Member, Since, Unit, format::Writer};
use crate::{
    codec,
    disk::{Frozen, StateDisk},
    time::block_apart,
    types::{Cluster, MemberId, Revision},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Chunks made before the taker asks for them: about 2 MiB unpacked.
const CHUNKS_AHEAD: usize = 8;

/// The bytes of a backup in pieces; an error is the last of them. A backup whose last chunk is
/// missing is refused by whoever reads it.
pub type Stream = mpsc::Receiver<Result<Bytes, Error>>;

/// A backup that has begun.
#[derive(Debug)]
pub struct Taken {
    pub header: Header,
    pub stream: Stream,
}

/// What is known before the disk is looked at.
pub(crate) struct Facts {
    pub(crate) cluster: Cluster,
    pub(crate) member: MemberId,
    pub(crate) members: Vec<Member>,
    pub(crate) keys: Vec<String>,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// What everybody was told before this was applied; `None` if that could not be asked.
    pub(crate) confirmed: Option<Revision>,
}

/// Begins a backup, or one that continues `since`.
pub(crate) async fn take(
    disk: Arc<StateDisk>,
    facts: Facts,
    since: Option<Since>,
) -> Result<Taken, Error> {
    let (send, stream) = mpsc::channel(CHUNKS_AHEAD);
    let (begin, begun) = oneshot::channel();
    block_apart(move || {
        let frozen = disk.freeze();
        let header = match header(&frozen, facts, since) {
            Ok(header) => header,
            Err(error) => return drop(begin.send(Err(error))),
        };
        if begin.send(Ok(header.clone())).is_ok()
            && let Err(error) = write(&frozen, &header, &send)
        {
            // The taker may be gone: then nobody needs to know.
            let _ = send.blocking_send(Err(error));
        }
    });
    let gone = |_| Error::Member(crate::Error::Stopped("the backup did not begin".into()));
    let header = begun.await.map_err(gone)??;
    Ok(Taken { header, stream })
}

fn header(frozen: &Frozen, facts: Facts, since: Option<Since>) -> Result<Header, Error> {
    let (revision, floor) = frozen.extent().map_err(Error::io("the state"))?;
    if let Some(since) = &since {
        follows(since, &facts.cluster, revision, floor)?;
    }
    Ok(Header {
        id: format!("{:016x}", rand::random::<u64>()),
        cluster: facts.cluster,
        program: env!("CARGO_PKG_VERSION").into(),
        feature_level: codec::VERSION,
        taken_at: facts.now,
        member: facts.member,
        confirmed: facts.confirmed.is_some_and(|confirmed| confirmed <= revision),
        oldest: since.as_ref().map_or(floor, |since| since.oldest),
        base: since.map(|since| Base { id: since.id, revision: since.revision }),
        revision,
        members: facts.members,
        keys: facts.keys,
    })
}

/// Whether a backup at `revision`, of a state with history after `floor`, can continue `since`.
fn follows(
    since: &Since,
    cluster: &Cluster,
    revision: Revision,
    floor: Revision,
) -> Result<(), Error> {
    if since.cluster != *cluster {
        let (theirs, id) = (&since.cluster, &since.id);
        let text = format!("backup {id} is of cluster {theirs}, this is {cluster}");
        return Err(Error::Mismatch(text));
    }
    if since.revision > revision {
        let text = format!(
            "backup {} ends at revision {}, this member is only at {revision}: ask another",
            since.id, since.revision
        );
        return Err(Error::Mismatch(text));
    }
    if since.revision < floor {
        return Err(Error::Compacted { after: since.revision, oldest: floor });
    }
    Ok(())
}

fn write(
    frozen: &Frozen,
    header: &Header,
    send: &mpsc::Sender<Result<Bytes, Error>>,
) -> Result<(), Error> {
    let gone = |_| Error::Refused("the taker is gone".into());
    let put = |bytes: Bytes| send.blocking_send(Ok(bytes)).map_err(gone);
    let (mut writer, first) = Writer::new(header);
    put(first)?;
    let after = header.base.as_ref().map_or(Revision(0), |base| base.revision);
    for unit in frozen.records(after) {
        let (at, record) = unit.map_err(Error::io("the state"))?;
        if let Some(chunk) = writer.push(&Unit { at, record }) {
            put(chunk)?;
        }
    }
    put(writer.finish())
}
