//! Between openraft's values and the messages of `wire`.

use super::{Entry, LogId, Membership, Payload, StoredMembership, Types, Vote, log_id, term_of};
use crate::{
    divergence::{Digest, Note},
    types::{Cluster, LogIndex, Revision},
};
use bytes::Bytes;
use openraft::{
    EntryPayload,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
        VoteRequest, VoteResponse,
    },
};
use wire::peer;

/// A message lacks what it must have, or holds what cannot be.
#[derive(Debug, thiserror::Error)]
#[error("malformed message: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

pub(crate) fn to_log_id(id: &LogId) -> peer::LogId {
    peer::LogId { term: term_of(id), index: id.index }
}

pub(crate) fn from_log_id(id: peer::LogId) -> Result<LogId, Malformed> {
    match id.index {
        u64::MAX => Err(Malformed("a log index that none can follow")),
        index => Ok(log_id(id.term, index)),
    }
}

pub(crate) fn from_log_ids(id: Option<peer::LogId>) -> Result<Option<LogId>, Malformed> {
    id.map(from_log_id).transpose()
}

pub(crate) fn to_vote(vote: &Vote) -> peer::Vote {
    let leader = &vote.leader_id;
    peer::Vote { term: leader.term, member: leader.voted_for, committed: vote.committed }
}

pub(crate) fn from_vote(vote: Option<peer::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("no vote"))?;
    Ok(match vote.committed {
        true => Vote::new_committed(vote.term, vote.member),
        false => Vote::new(vote.term, vote.member),
    })
}

pub(crate) fn to_membership(membership: &StoredMembership) -> Bytes {
    serde_json::to_vec(membership).expect("a membership is plain data").into()
}

pub(crate) fn from_membership(bytes: &[u8]) -> Result<StoredMembership, Malformed> {
    serde_json::from_slice(bytes).map_err(|_| Malformed("membership"))
}

pub(crate) fn to_entry(entry: &Entry) -> peer::LogEntry {
    use peer::log_entry::Payload as Out;
    let payload = match &entry.payload {
        EntryPayload::Blank => None,
        EntryPayload::Normal(payload) => Some(Out::Command(payload.0.clone())),
        EntryPayload::Membership(membership) => {
            let json = serde_json::to_vec(&membership).expect("a membership is plain data");
            Some(Out::Membership(json.into()))
        }
    };
    peer::LogEntry { id: Some(to_log_id(&entry.log_id)), payload }
}

pub(crate) fn from_entry(entry: peer::LogEntry) -> Result<Entry, Malformed> {
    use peer::log_entry::Payload as In;
    let log_id = from_log_id(entry.id.ok_or(Malformed("no log id"))?)?;
    let payload = match entry.payload {
        None => EntryPayload::Blank,
        Some(In::Command(bytes)) => EntryPayload::Normal(Payload(bytes)),
        Some(In::Membership(json)) => {
            let membership: Membership =
                serde_json::from_slice(&json).map_err(|_| Malformed("membership"))?;
            EntryPayload::Membership(membership)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn to_append(request: &AppendEntriesRequest<Types>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(to_vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(to_log_id),
        committed: request.leader_commit.as_ref().map(to_log_id),
        entries: request.entries.iter().map(to_entry).collect(),
    }
}

pub(crate) fn from_append(
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let vote = from_vote(request.vote)?;
    let prev_log_id = from_log_ids(request.previous)?;
    let leader_commit = from_log_ids(request.committed)?;
    let entries = request.entries.into_iter().map(from_entry);
    let entries = entries.collect::<Result<Vec<Entry>, _>>()?;
    // Raft's engine takes this for granted, and would end over it.
    let mut before = prev_log_id;
    for entry in &entries {
        if !follows(before, entry.log_id) {
            return Err(Malformed("an entry that does not follow the one before it"));
        }
        before = Some(entry.log_id);
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, leader_commit, entries })
}

fn follows(before: Option<LogId>, id: LogId) -> bool {
    match before {
        None => id.index == 0,
        Some(before) => id.index == before.index + 1 && term_of(&id) >= term_of(&before),
    }
}

pub(crate) fn to_append_response(response: &AppendEntriesResponse<Types>) -> peer::AppendResponse {
    use peer::append_response::Result as Out;
    let result = match response {
        AppendEntriesResponse::Success => Out::Success(true),
        AppendEntriesResponse::PartialSuccess(to) => {
            Out::Matching(peer::Matching { id: to.as_ref().map(to_log_id) })
        }
        AppendEntriesResponse::Conflict => Out::Conflict(peer::LogId::default()),
        AppendEntriesResponse::HigherVote(vote) => Out::HigherVote(to_vote(vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

pub(crate) fn from_append_response(
    response: peer::AppendResponse,
) -> Result<AppendEntriesResponse<Types>, Malformed> {
    use peer::append_response::Result as In;
    Ok(match response.result.ok_or(Malformed("no result"))? {
        In::Success(_) => AppendEntriesResponse::Success,
        In::Matching(to) => AppendEntriesResponse::PartialSuccess(from_log_ids(to.id)?),
        In::Conflict(_) => AppendEntriesResponse::Conflict,
        In::HigherVote(vote) => AppendEntriesResponse::HigherVote(from_vote(Some(vote))?),
    })
}

pub(crate) fn to_stream_result(result: &StreamAppendResult<Types>) -> peer::AppendResponse {
    use peer::append_response::Result as Out;
    let result = match result {
        Ok(to) => Out::Matching(peer::Matching { id: to.as_ref().map(to_log_id) }),
        Err(StreamAppendError::Conflict(at)) => Out::Conflict(to_log_id(at)),
        Err(StreamAppendError::HigherVote(vote)) => Out::HigherVote(to_vote(vote)),
    };
    peer::AppendResponse { result: Some(result) }
}

pub(crate) fn from_stream_result(
    response: peer::AppendResponse,
) -> Result<StreamAppendResult<Types>, Malformed> {
    use peer::append_response::Result as In;
    Ok(match response.result.ok_or(Malformed("no result"))? {
        In::Success(_) => return Err(Malformed("a stream answers with a log id")),
        In::Matching(to) => Ok(from_log_ids(to.id)?),
        In::Conflict(at) => Err(StreamAppendError::Conflict(from_log_id(at)?)),
        In::HigherVote(vote) => Err(StreamAppendError::HigherVote(from_vote(Some(vote))?)),
    })
}

pub(crate) fn to_vote_request(request: &VoteRequest<Types>) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(to_vote(&request.vote)),
        last: request.last_log_id.as_ref().map(to_log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn from_vote_request(
    request: peer::VoteRequest,
) -> Result<VoteRequest<Types>, Malformed> {
    let mut out = VoteRequest::new(from_vote(request.vote)?, from_log_ids(request.last)?);
    out.leadership_transfer = request.leadership_transfer;
    Ok(out)
}

pub(crate) fn to_vote_response(response: &VoteResponse<Types>) -> peer::VoteResponse {
    peer::VoteResponse {
        vote: Some(to_vote(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(to_log_id),
    }
}

pub(crate) fn from_vote_response(
    response: peer::VoteResponse,
) -> Result<VoteResponse<Types>, Malformed> {
    let vote = from_vote(response.vote)?;
    Ok(VoteResponse::new(vote, from_log_ids(response.last)?, response.granted))
}

pub(crate) fn to_cluster(cluster: &Cluster) -> peer::Cluster {
    peer::Cluster { id: cluster.id.to_string(), epoch: cluster.epoch }
}

pub(crate) fn from_cluster(cluster: peer::Cluster) -> Cluster {
    Cluster { id: cluster.id.into(), epoch: cluster.epoch }
}

pub(crate) fn to_note(note: &Note) -> peer::Note {
    peer::Note { index: note.index.0, revision: note.revision.0, digest: note.digest.0 }
}

pub(crate) fn from_note(note: &peer::Note) -> Note {
    let (index, revision) = (LogIndex(note.index), Revision(note.revision));
    Note { index, revision, digest: Digest(note.digest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_each_other() {
        let id = |(term, index)| peer::LogId { term, index };
        let append = |previous: Option<(u64, u64)>, entries: &[(u64, u64)]| {
            let entry = |at: &(u64, u64)| peer::LogEntry { id: Some(id(*at)), payload: None };
            from_append(peer::AppendRequest {
                vote: Some(peer::Vote { term: 3, member: 1, committed: true }),
                previous: previous.map(id),
                committed: None,
                entries: entries.iter().map(entry).collect(),
            })
        };
        assert!(append(None, &[(1, 0), (1, 1), (3, 2)]).is_ok());
        assert!(append(Some((1, 6)), &[(2, 7)]).is_ok());
        assert!(append(Some((1, 6)), &[]).is_ok());
        for (previous, entries) in [
            (None, &[(1, 1)][..]),
            (Some((1, 6)), &[(1, 6)]),
            (Some((1, 6)), &[(1, 8)]),
            (Some((2, 6)), &[(1, 7)]),
            (Some((1, 6)), &[(1, 7), (1, 9)]),
            (Some((1, u64::MAX)), &[]),
        ] {
            assert!(append(previous, entries).is_err(), "{previous:?} {entries:?}");
        }
    }
}
