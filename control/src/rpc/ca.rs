//! Certificates: the root for anybody, a first certificate for who has a token, a new one for who
//! has one already.

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};
use weft_proto::{
    ca::{IssueReply, IssueRequest, RootReply, RootRequest},
    service::ca_server,
};
use weft_types::node::Role;

use super::guard;
use crate::runtime::Manager;

/// The certificate service of a manager.
#[derive(Debug)]
pub(super) struct Ca(pub(super) Arc<Manager>);

#[async_trait]
impl ca_server::Ca for Ca {
    async fn root(&self, _: Request<RootRequest>) -> Result<Response<RootReply>, Status> {
        // Before this manager has the store, its own identity knows the root.
        let certificate = match self.0.view().cluster() {
            Some(cluster) => cluster.tls_info.trust_root.clone(),
            None => self.0.credentials().identity().trust_root.clone(),
        };
        Ok(Response::new(RootReply { certificate }))
    }

    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueReply>, Status> {
        let manager = &self.0;
        let peer = guard::peer(&request)?;
        let mut request = request.into_inner();
        if request.token.is_empty() {
            let caller = guard::member(&peer, manager.cluster_id(), &manager.view())?;
            // A manager may ask in the name of a node that asked it.
            if request.on_behalf_of.is_none() || caller.role != Role::Manager {
                request.on_behalf_of = Some(caller.node);
                request.certified = Some(caller.role);
            }
        } else {
            request.on_behalf_of = None;
        }
        match manager.issue(request).await {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => Err(guard::status(&error)),
        }
    }
}
