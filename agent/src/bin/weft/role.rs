//! The manager's role: switched on by init, by a manager's token or by promotion, and off again.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use weft_control::{
    ca::BACKDATE,
    runtime::{Manager, ManagerConfig},
};
use weft_proto::{dial, identity::Credentials};
use weft_types::{NodeId, node::Role};
use x509_parser::pem::parse_x509_pem;

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
                credentials.keep(state_dir, identity)?;
                return Ok(role);
            }
            Err(error) => last = anyhow::Error::new(error).context(format!("manager {addr}")),
        }
    }
    Err(last).context("cannot renew the certificate of this node")
}

/// When the certificate in use should be renewed: between a half and four fifths of its life, at a
/// point that differs from node to node so that they do not all come at once.
pub(crate) fn renewal_due(credentials: &Credentials) -> Result<SystemTime> {
    let identity = credentials.identity();
    let (_, pem) = parse_x509_pem(identity.certificate.as_bytes())
        .map_err(|error| anyhow::anyhow!("the certificate of this node is not PEM: {error}"))?;
    let certificate = pem
        .parse_x509()
        .map_err(|error| anyhow::anyhow!("the certificate of this node is not X.509: {error}"))?;
    let validity = certificate.validity();
    let second = |at: i64| u64::try_from(at).unwrap_or_default();
    let (from, to) = (
        second(validity.not_before.timestamp()),
        second(validity.not_after.timestamp()),
    );
    Ok(UNIX_EPOCH + Duration::from_secs(due(identity.node, from, to)))
}

/// When `node` renews a certificate that holds from `from` to `to`; all in seconds since 1970. Not
/// in the first quarter of what it had left when it was made: of the shortest ones, which begin as
/// long before they are made as they hold after it, half is over then.
fn due(node: NodeId, from: u64, to: u64) -> u64 {
    let digits = node.as_str().bytes().map(u64::from);
    let share = 50 + digits.fold(0, |sum, digit| (sum * 31 + digit) % 31);
    let at = from + to.saturating_sub(from) * share / 100;
    let made = (from + BACKDATE.as_secs()).min(to);
    at.max(made + (to - made) / 4)
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
    started
        .await
        .context("cannot start the manager of this node")
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nodes_renew_well_before_the_end_and_not_all_at_once() {
        let (from, to) = (1_000_000, 1_000_000 + 90 * 24 * 3600);
        let life = to - from;
        let times: BTreeSet<u64> = (0..60)
            .map(|number| due(NodeId::numbered(number), from, to))
            .collect();
        for at in &times {
            assert!((from + life / 2..=from + life * 4 / 5).contains(at), "{at}");
        }
        assert!(times.len() > 20, "{} different times of 60", times.len());
        let node = NodeId::numbered(7);
        assert_eq!(due(node, from, to), due(node, from, to));
        // A clock that is older than the certificate, or one that never held.
        assert_eq!(due(node, to, from), to);
        // Of the shortest that users may ask for none is due as soon as it is there.
        let (made, to) = (from + 3600, from + 2 * 3600);
        for number in 0..60 {
            let at = due(NodeId::numbered(number), from, to);
            assert!((made + 15 * 60..=made + 36 * 60).contains(&at), "{at}");
        }
    }
}
