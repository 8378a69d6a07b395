//! The members, as etcd's clients list them. They are not changed here.

use crate::{
    kv::Door,
    proto::rpc::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, cluster_server::Cluster,
    },
    status,
};
use raft_store::MemberStatus;
use tonic::{Request, Response, Status};

fn elsewhere() -> Status {
    Status::unimplemented("members are not changed through etcd's API")
}

impl Door {
    fn member(&self, member: MemberStatus) -> Member {
        // Only the own address is known; the others do not say where their doors are.
        let own = member.id == self.store().member();
        let client_urls = own.then(|| self.about().client_url.clone()).into_iter().collect();
        Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: vec![format!("https://{}", member.peer_address)],
            client_ur_ls: client_urls,
            is_learner: !member.voter,
        }
    }
}

#[tonic::async_trait]
impl Cluster for Door {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let store = self.store();
        if request.get_ref().linearizable {
            store.barrier().await.map_err(status::of)?;
        }
        let members = store.members().into_iter().map(|member| self.member(member)).collect();
        Ok(Response::new(MemberListResponse { header: self.header(store.revision()), members }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(elsewhere())
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(elsewhere())
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(elsewhere())
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(elsewhere())
    }
}
