//! `/swarm`.

use http::StatusCode;
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use weft_proto::ControlRequest;
use weft_types::{
    cluster::ClusterSpec,
    node::{Node, Reachability},
    validate,
};

use crate::{
    body::{parse_due, parse_spec, read_spec},
    dated,
    door::{Asked, Door, expect_reply},
    go_types,
    node::{InitRequest, JoinRequest, LocalState, LocalStatus, NotManager},
    reply::{ApiError, Reply, empty, ok},
    view::ClusterView,
};

const ALREADY: &str = "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";

/// Prefix length of subnets when a request names none.
const DEFAULT_SUBNET_SIZE: u32 = 24;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnlockKey {
    #[serde(default)]
    unlock_key: String,
}

impl Door {
    pub(crate) async fn inspect_swarm(&self) -> Reply {
        let cluster = expect_reply!(self.ask(ControlRequest::GetCluster).await?, Cluster)?;
        Ok(ok(&ClusterView::of(*cluster, true)))
    }

    pub(crate) async fn init(&self, asked: &Asked) -> Reply {
        let mut value = parse_due(&asked.body, &go_types::INIT)?;
        dated::leave_out(&mut value, dated::INIT, asked.version);
        let mut request: InitRequest = read_spec(value, &go_types::INIT)?;
        let status = self.node.status().await;
        let again = request.force_new_cluster && status.control_available;
        if status.state != LocalState::Inactive && !again {
            return Err(unavailable(ALREADY));
        }
        check_name(&mut request.spec)?;
        if request.listen_addr.is_empty() {
            request.listen_addr = "0.0.0.0:2377".to_owned();
        }
        check_pools(&mut request)?;
        check_data_path_port(request.data_path_port)?;
        validate::cluster_spec(&request.spec)?;
        request.spec.encryption_config.auto_lock_managers |= request.auto_lock_managers;
        let id = self.node.init(request).await;
        let id = id.map_err(ApiError::from_node)?;
        self.history.ready().await;
        Ok(ok(&id))
    }

    pub(crate) async fn join(&self, asked: &Asked) -> Reply {
        let mut request: JoinRequest = parse_spec(&asked.body, &go_types::JOIN)?;
        if self.node.status().await.state != LocalState::Inactive {
            return Err(unavailable(ALREADY));
        }
        if request.listen_addr.is_empty() {
            request.listen_addr = "0.0.0.0:2377".to_owned();
        }
        if request.remote_addrs.is_empty() {
            return Err(ApiError::bad("at least 1 RemoteAddr is required to join"));
        }
        if request.remote_addrs.iter().any(String::is_empty) {
            return Err(ApiError::bad(
                "invalid remoteAddr \"\": invalid empty address",
            ));
        }
        let joined = self.node.join(request).await;
        joined.map_err(ApiError::from_node)?;
        Ok(empty(StatusCode::OK))
    }

    pub(crate) async fn leave(&self, asked: &Asked) -> Reply {
        let force = asked.query.flag("force");
        let status = self.node.status().await;
        if status.state == LocalState::Inactive {
            return Err(unavailable("This node is not part of a swarm"));
        }
        if status.state == LocalState::Locked && !force {
            return Err(unavailable(
                "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.",
            ));
        }
        if status.control_available && !force {
            return Err(unavailable(&self.why_managers_stay(&status).await));
        }
        let left = self.node.leave(force).await;
        left.map_err(ApiError::from_node)?;
        Ok(empty(StatusCode::OK))
    }

    /// Docker's warning to a manager that would leave.
    async fn why_managers_stay(&self, status: &LocalStatus) -> String {
        let mut text =
            "You are attempting to leave the swarm on a node that is participating as a manager. "
                .to_owned();
        // Without a leader nothing is known of the others: the plain warning then.
        if let Ok(nodes) = self.nodes().await {
            let reached = |node: &&Node| {
                let manager = node.manager_status.as_ref();
                manager.is_some_and(|m| m.reachability == Reachability::Reachable)
            };
            let reachable = nodes.iter().filter(reached).count();
            let managers = nodes.iter().filter(|n| n.manager_status.is_some());
            let managers = managers.count();
            if managers <= 1 {
                text += "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ";
                return text;
            }
            let own = nodes.iter().find(|node| Some(node.id) == status.node_id);
            let left = reachable.saturating_sub(1);
            if own.as_ref().is_some_and(reached) && left < managers / 2 + 1 {
                text += &format!(
                    "Removing this node leaves {left} managers out of {managers}. Without a Raft quorum your swarm will be inaccessible. "
                );
            }
        }
        text + "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
    }

    pub(crate) async fn update_swarm(&self, asked: &Asked) -> Reply {
        let mut spec: ClusterSpec = parse_spec(&asked.body, &go_types::CLUSTER)?;
        self.manager().await?;
        let version = asked.query.version("swarm")?;
        let rotate = |key| {
            let said = asked.query.truth(key);
            said.map_err(|_| {
                let word = asked.query.get(key);
                ApiError::bad(format!("invalid value for {key}: {word}"))
            })
        };
        let (worker, manager, key) = (
            rotate("rotateWorkerToken")?,
            rotate("rotateManagerToken")?,
            rotate("rotateManagerUnlockKey")?,
        );
        check_name(&mut spec)?;
        validate::cluster_spec(&spec)?;
        self.ask(ControlRequest::UpdateCluster {
            version,
            spec: Box::new(spec),
            rotate_worker_token: worker,
            rotate_manager_token: manager,
            rotate_unlock_key: key,
        })
        .await?;
        Ok(empty(StatusCode::OK))
    }

    pub(crate) async fn unlock_key(&self) -> Reply {
        let unlock_key = expect_reply!(self.ask(ControlRequest::GetUnlockKey).await?, Key)?;
        Ok(ok(&UnlockKey { unlock_key }))
    }

    pub(crate) async fn unlock(&self, asked: &Asked) -> Reply {
        let request: UnlockKey = parse_spec(&asked.body, &go_types::UNLOCK)?;
        match self.node.control().await {
            Ok(_) => return Err(ApiError::new(StatusCode::CONFLICT, "swarm is not locked")),
            Err(NotManager::Locked) => {}
            Err(other) => return Err(other.into()),
        }
        let unlocked = self.node.unlock(&request.unlock_key).await;
        unlocked.map_err(ApiError::from_node)?;
        Ok(empty(StatusCode::OK))
    }

    /// The cluster's own node objects; for counts.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, ApiError> {
        expect_reply!(self.ask(ControlRequest::ListNodes).await?, Nodes)
    }
}

fn unavailable(message: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

fn check_name(spec: &mut ClusterSpec) -> Result<(), ApiError> {
    if spec.name.is_empty() {
        spec.name = "default".to_owned();
    }
    if spec.name != "default" {
        return Err(ApiError::bad("swarm spec must be named \"default\""));
    }
    Ok(())
}

/// Pools must be subnets that do not overlap, and the subnets cut from them must fit in.
fn check_pools(request: &mut InitRequest) -> Result<(), ApiError> {
    let size = match request.subnet_size {
        0 => DEFAULT_SUBNET_SIZE,
        size => size,
    };
    let mut pools: Vec<IpNetwork> = Vec::new();
    for text in &request.default_addr_pool {
        let pool: IpNetwork = text
            .parse()
            .map_err(|_| ApiError::bad(format!("invalid CIDR address: {text}")))?;
        if u32::from(pool.prefix()) > size {
            return Err(ApiError::bad(format!(
                "invalid CIDR: {text}. Subnet size is too small for pool: {size}"
            )));
        }
        let overlaps =
            |other: &&IpNetwork| other.contains(pool.network()) || pool.contains(other.network());
        if let Some(other) = pools.iter().find(overlaps) {
            return Err(ApiError::bad(format!(
                "invalid default address pool: {pool} overlaps with {other}"
            )));
        }
        pools.push(pool);
    }
    if size > 29 {
        return Err(ApiError::bad("subnet size is out of range: 29"));
    }
    Ok(())
}

fn check_data_path_port(port: u32) -> Result<(), ApiError> {
    if port != 0 && !(1024..=49151).contains(&port) {
        return Err(ApiError::bad(format!(
            "VXLAN UDP port number is not in valid range (1024-49151): {port}"
        )));
    }
    Ok(())
}

/// The spec as the API shows it: defaults filled in, write-only fields left out.
pub(crate) fn shown(mut spec: ClusterSpec) -> ClusterSpec {
    if spec.name.is_empty() {
        spec.name = "default".to_owned();
    }
    let history = &mut spec.orchestration.task_history_retention_limit;
    history.get_or_insert(5);
    let raft = &mut spec.raft;
    raft.snapshot_interval.get_or_insert(10_000);
    raft.keep_old_snapshots.get_or_insert(0);
    raft.log_entries_for_slow_followers.get_or_insert(500);
    for (ticks, default) in [(&mut raft.election_tick, 10), (&mut raft.heartbeat_tick, 1)] {
        if *ticks == 0 {
            *ticks = default;
        }
    }
    if spec.dispatcher.heartbeat_period == 0 {
        spec.dispatcher.heartbeat_period = 5_000_000_000;
    }
    if spec.ca_config.node_cert_expiry == 0 {
        spec.ca_config.node_cert_expiry = 7_776_000_000_000_000;
    }
    spec.ca_config.signing_ca_key.clear();
    spec
}
