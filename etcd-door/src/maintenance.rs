//! How this member is, for etcd's tools: status, hashes, and refusals of what is done otherwise here.

use crate::{
    compaction,
    kv::Door,
    proto::rpc::{
        AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, HashKvRequest,
        HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest, MoveLeaderResponse,
        SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
        alarm_request::AlarmAction, maintenance_server::Maintenance,
    },
    range,
    record::{KEYS, key_value},
    status,
};
use prost::Message as _;
use raft_store::Revision;
use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
};
use tonic::{Request, Response, Status};

/// The version of etcd whose API this is. kube-apiserver looks at it: from 3.5.13 on it relies on
/// progress being told on request.
const VERSION: &str = "3.5.30";
/// "Coxswain" in ASCII: clients only compare it with itself.
pub(crate) const CLUSTER_ID: u64 = 0x436f_7873_7761_696e;

/// What does not change while this member runs.
pub(crate) struct About {
    pub(crate) client_url: String,
    /// Where the store keeps its files; `None` in memory.
    pub(crate) data_dir: Option<PathBuf>,
}

/// Bytes of all files under a directory. What vanishes meanwhile does not count.
fn bytes_under(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let Ok(entry) = entry else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += match metadata.is_dir() {
            true => bytes_under(&entry.path()).unwrap_or(0),
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

impl Door {
    async fn size(&self) -> Result<i64, Status> {
        let Some(dir) = self.about().data_dir.clone() else { return Ok(0) };
        let bytes = tokio::task::spawn_blocking(move || bytes_under(&dir)).await;
        let bytes = bytes.map_err(|error| Status::internal(error.to_string()))?;
        Ok(bytes.map_err(|error| Status::internal(error.to_string()))?.cast_signed())
    }

    /// A checksum of all keys as they were at a revision (the newest if `None`), the same on every
    /// member; with that revision.
    async fn hash(&self, at: Option<Revision>) -> Result<(u32, Revision), Status> {
        let store = self.store();
        let at = store.look(|view| match at {
            None => Ok(view.revision()),
            Some(at) => range::readable(view, at).map(|()| at),
        })?;
        let page = store.range_at(KEYS, "", None, None, at).await.map_err(status::of)?;
        let hash = tokio::task::spawn_blocking(move || {
            page.items.iter().fold(0, |hash, item| {
                crc32c::crc32c_append(
                    hash,
                    &key_value(item, false).encode_length_delimited_to_vec(),
                )
            })
        });
        Ok((hash.await.map_err(|error| Status::internal(error.to_string()))?, at))
    }
}

#[tonic::async_trait]
impl Maintenance for Door {
    type SnapshotStream =
        Pin<Box<dyn futures::Stream<Item = Result<SnapshotResponse, Status>> + Send>>;

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let store = self.store();
        let (revision, leadership) = (store.revision(), *store.leadership().borrow());
        let bytes = self.size().await?;
        let own = store.members().into_iter().find(|member| member.id == store.member());
        let mut errors = Vec::new();
        if leadership.leader.is_none() {
            errors.push("etcdserver: no leader".into());
        }
        Ok(Response::new(StatusResponse {
            header: self.header(revision),
            version: VERSION.into(),
            db_size: bytes,
            leader: leadership.leader.map_or(0, |leader| leader.0),
            // The store does not show indexes of its log; this grows as they do.
            raft_index: revision.0,
            raft_term: leadership.term.0,
            raft_applied_index: revision.0,
            errors,
            db_size_in_use: bytes,
            is_learner: own.is_some_and(|own| !own.voter),
        }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let (hash, revision) = Door::hash(self, None).await?;
        Ok(Response::new(HashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let at = u64::try_from(request.get_ref().revision).ok().filter(|at| *at > 0);
        let (hash, at) = Door::hash(self, at.map(Revision)).await?;
        let (now, compacted) = self.store().look(|view| (view.revision(), compaction::asked(view)));
        Ok(Response::new(HashKvResponse {
            header: self.header(now),
            hash,
            compact_revision: compacted.0.cast_signed(),
            hash_revision: at.0.cast_signed(),
        }))
    }

    /// There are none: what is wrong here stops a member or is in its metrics.
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        if request.get_ref().action() == AlarmAction::Activate {
            return Err(Status::unimplemented("there are no alarms to raise"));
        }
        let header = self.header(self.store().revision());
        Ok(Response::new(AlarmResponse { header, alarms: Vec::new() }))
    }

    /// Nothing to do: space is given back while the store works.
    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        tracing::info!("a client of etcd's API asked to defragment: the store does that by itself");
        let header = self.header(self.store().revision());
        Ok(Response::new(DefragmentResponse { header }))
    }

    async fn snapshot(
        &self,
        _: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(Status::unimplemented(
            "there is no file of etcd's format here: nothing can be saved through etcd's API",
        ))
    }

    async fn move_leader(
        &self,
        _: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        Err(Status::unimplemented("leadership is not moved through etcd's API"))
    }
}
