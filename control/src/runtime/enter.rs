//! Into the group of managers, and out of it.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tracing::debug;
use weft_proto::{
    ControlError,
    dial::{self, DialError},
    identity::Credentials,
    raft::{JoinRequest, LeaveRequest, MembersReply},
};
use weft_types::NodeId;

use super::{
    Forwarded, Manager, ManagerConfig, StartError,
    route::forwarded,
    start::{Opened, directory, open, state_error},
};
use crate::raft::Member;

/// How long a manager may take to become a full member.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// Pause between two tries to join.
const PAUSE: Duration = Duration::from_millis(200);

impl Manager {
    /// Joins the group of `managers` with the node's manager certificate. Returns when this
    /// manager is a full member that has the cluster's state.
    ///
    /// # Errors
    /// When no manager takes it in within 20 s; nothing is left of the attempt then.
    pub async fn join(
        config: ManagerConfig,
        credentials: Credentials,
        managers: Vec<SocketAddr>,
    ) -> Result<Arc<Self>, StartError> {
        let directory = directory(&config);
        let opened = open(&config, None).await?;
        let entered = Self::enter(config, credentials, opened, managers).await;
        if entered.is_err() {
            // The next attempt starts from nothing, as somebody new.
            let _ = fs::remove_dir_all(&directory);
        }
        entered
    }

    /// Joins with what is open. Whoever has been taken in keeps his files whatever happens: his
    /// vote may be on its way, and without him nothing more might be committed. Started again, he
    /// goes on as the same member.
    pub(super) async fn enter(
        config: ManagerConfig,
        credentials: Credentials,
        opened: Opened,
        managers: Vec<SocketAddr>,
    ) -> Result<Arc<Self>, StartError> {
        let deadline = Instant::now() + JOIN_LIMIT;
        let directory = directory(&config);
        let request = JoinRequest {
            node: credentials.identity().node,
            addr: config.advertise.to_string(),
        };
        let reply = ask_in(&credentials, &managers, request, deadline).await?;
        opened
            .log
            .set_member_number(reply.raft_id)
            .map_err(state_error(&directory))?;
        let manager = Self::run(config, credentials, opened, reply.raft_id).await?;
        match tokio::time::timeout_at(deadline, manager.full_member()).await {
            Ok(()) => Ok(manager),
            Err(_) => {
                manager.shutdown().await;
                Err(StartError::Join(
                    "The managers took this one in, but it did not get their state.".to_owned(),
                ))
            }
        }
    }

    /// Waits until this manager has the cluster's state and a vote that is committed: before that,
    /// the death of another manager could still cost the majority.
    async fn full_member(&self) {
        let mut metrics = self.raft.metrics();
        loop {
            let votes = {
                let metrics = metrics.borrow_and_update();
                let configs = metrics.committed_membership_config.get_joint_config();
                configs.len() == 1 && configs[0].contains(&metrics.id)
            };
            if votes && self.replica.view().node(self.node).is_some() {
                return;
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Has the leader take `node` out of the group.
    pub(crate) async fn part(&self, node: NodeId) -> Result<MembersReply, ControlError> {
        self.route(
            true,
            || self.dismiss(node),
            |addr| async move {
                let mut client = dial::raft(self.peers.control(addr));
                forwarded(client.leave(LeaveRequest { node }).await, true)
            },
        )
        .await
    }

    /// Has the leader take a manager into the group.
    pub(crate) async fn bring_in(
        &self,
        request: JoinRequest,
    ) -> Result<MembersReply, ControlError> {
        self.route(
            false,
            || {
                self.admit(Member {
                    node: request.node,
                    addr: request.addr.clone(),
                })
            },
            |addr| {
                let request = request.clone();
                async move {
                    let mut client = dial::raft(self.peers.control(addr));
                    match client.join(request).await {
                        Err(status) => forwarded(Err(status), false),
                        Ok(reply) => Forwarded::Done(Ok(reply.into_inner())),
                    }
                }
            },
        )
        .await
    }
}

/// Asks managers to be taken in until one does.
async fn ask_in(
    credentials: &Credentials,
    managers: &[SocketAddr],
    request: JoinRequest,
    deadline: Instant,
) -> Result<MembersReply, StartError> {
    let mut last = "No manager is known.".to_owned();
    while Instant::now() < deadline {
        for addr in managers {
            let asked = async {
                let channel = dial::connect(*addr, credentials).await?;
                let reply = dial::raft(channel).join(request.clone()).await;
                reply
                    .map(tonic::Response::into_inner)
                    .map_err(|status| DialError::Refused(dial::from_status(&status)))
            };
            match tokio::time::timeout_at(deadline, asked).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => {
                    debug!(%addr, %error, "not taken in");
                    last = error.to_string();
                }
                Err(_) => break,
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(StartError::Join(last))
}
