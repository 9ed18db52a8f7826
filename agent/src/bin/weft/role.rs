//! The manager's role: switched on by init, by a manager's token or by promotion, and off again.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use weft_control::runtime::{Manager, ManagerConfig};
use weft_proto::{dial, identity::Credentials};
use weft_types::node::Role;

use crate::place::Settings;

/// How a manager of this node is made.
pub(crate) fn config(state_dir: &Path, settings: &Settings) -> ManagerConfig {
    ManagerConfig {
        state_dir: state_dir.to_owned(),
        listen: settings.listen,
        advertise: settings.advertise,
    }
}

/// Gets a certificate for the role that the node should have, from the first manager that gives one.
pub(crate) async fn renew(
    state_dir: &Path,
    credentials: &Credentials,
    managers: &[SocketAddr],
) -> Result<Role> {
    let mut last = anyhow::anyhow!("no manager is known");
    for addr in managers {
        match dial::renew(*addr, credentials).await {
            Ok(identity) => {
                let role = identity.role;
                identity.save(state_dir)?;
                credentials.swap(identity)?;
                return Ok(role);
            }
            Err(error) => last = anyhow::Error::new(error).context(format!("manager {addr}")),
        }
    }
    Err(last).context("cannot renew the certificate of this node")
}

/// Starts the manager of this node.
pub(crate) async fn start(
    state_dir: &Path,
    settings: &Settings,
    credentials: &Credentials,
    managers: &[SocketAddr],
) -> Result<Arc<Manager>> {
    let others = managers.iter().filter(|addr| **addr != settings.advertise);
    let started = Manager::start(
        config(state_dir, settings),
        credentials.clone(),
        others.copied().collect(),
    );
    started.await.context("cannot start the manager of this node")
}

/// Stops the manager of this node, which is none any more, and removes its log.
pub(crate) async fn stop(state_dir: &Path, manager: &Manager) -> Result<()> {
    manager.shutdown().await;
    remove_log(state_dir)
}

/// Removes the manager's log.
pub(crate) fn remove_log(state_dir: &Path) -> Result<()> {
    let path = state_dir.join("raft");
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Between two tries to take up a role.
pub(crate) const RETRY: Duration = Duration::from_secs(1);
