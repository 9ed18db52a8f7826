//! A new root for the cluster, without anybody losing a connection.
//!
//! Asked for by a `ForceRotate` that has grown. First every node is told to trust the old root and
//! the new one; certificates are from then on signed by the new one, and come with the new root
//! signed by the old, so the order in which nodes hear of it does not matter. When every node has
//! a new certificate, the old root is forgotten and the join tokens change.

use tracing::{debug, info};
use weft_proto::token::JoinToken;
use weft_types::{
    Timestamp, Version,
    cluster::{Cluster, JoinTokens, RootRotation},
    node::{Node, TlsInfo},
};

use super::Manager;
use crate::{
    ca::{Authority, CaError},
    store::{Change, IdSource, View},
};

/// What nodes must trust now, PEM.
pub(crate) fn trusted(cluster: &Cluster) -> String {
    let mut roots = cluster.tls_info.trust_root.clone();
    if let Some(rotation) = &cluster.rotation {
        roots.push_str(&rotation.certificate);
    }
    roots
}

/// The authority that signs now.
pub(crate) fn signer(cluster: &Cluster) -> Authority {
    match &cluster.rotation {
        Some(rotation) => {
            Authority::from_pem(&rotation.certificate, &rotation.key).crossed(&rotation.cross)
        }
        None => Authority::from_pem(&cluster.tls_info.trust_root, &cluster.ca_key),
    }
}

/// Names the root that signs now; what a node's certificate is marked with.
pub(crate) fn epoch(cluster: &Cluster) -> Version {
    let rotation = cluster.rotation.as_ref();
    Version {
        index: rotation.map_or(cluster.rotated, |rotation| rotation.epoch),
    }
}

/// Whether a node must get a new certificate.
pub(crate) fn is_stale(cluster: &Cluster, node: &Node) -> bool {
    cluster.rotation.is_some() && node.certificate != epoch(cluster)
}

/// The authority of a node's certificate, as Docker's API shows it.
pub(crate) fn shown(cluster: &Cluster, node: &Node) -> TlsInfo {
    match &cluster.rotation {
        Some(rotation) if !is_stale(cluster, node) => {
            let authority = Authority::from_pem(&rotation.certificate, &rotation.key);
            authority.tls_info().unwrap_or_default()
        }
        _ => cluster.tls_info.clone(),
    }
}

/// The next step of a rotation; `None` when there is none to take.
fn step(view: &View, now: Timestamp, ids: &mut IdSource) -> Result<Option<Change>, CaError> {
    let Some(stored) = view.cluster() else {
        return Ok(None);
    };
    let wished = stored.spec.ca_config.force_rotate;
    let mut cluster = Cluster::clone(stored);
    if wished != epoch(stored).index {
        let old = Authority::from_pem(&stored.tls_info.trust_root, &stored.ca_key);
        let new = Authority::generate(now)?;
        cluster.rotation = Some(RootRotation {
            certificate: new.certificate().to_owned(),
            key: new.key().to_owned(),
            cross: old.cross_sign(&new, now)?,
            epoch: wished,
        });
        cluster.root_rotation_in_progress = true;
        info!(epoch = wished, "rotating the root certificate");
        return Ok(Some(Change::put(cluster)));
    }
    let Some(rotation) = &stored.rotation else {
        return Ok(None);
    };
    if view.nodes().any(|node| is_stale(stored, node)) {
        return Ok(None);
    }
    let new = Authority::from_pem(&rotation.certificate, &rotation.key);
    let mut token = || JoinToken::new(new.certificate(), ids.bytes()).to_string();
    cluster.join_tokens = JoinTokens {
        worker: token(),
        manager: token(),
    };
    cluster.tls_info = new.tls_info()?;
    new.key().clone_into(&mut cluster.ca_key);
    cluster.rotated = rotation.epoch;
    cluster.rotation = None;
    cluster.root_rotation_in_progress = false;
    info!(epoch = cluster.rotated, "the root certificate is rotated");
    Ok(Some(Change::put(cluster)))
}

impl Manager {
    /// Takes the next step of a rotation, if there is one.
    pub(super) async fn tend_rotation(&self) {
        let due = {
            let view = self.replica.view();
            view.cluster().is_some_and(|cluster| {
                cluster.rotation.is_some() || cluster.spec.ca_config.force_rotate != cluster.rotated
            })
        };
        if !due {
            return;
        }
        let written = self
            .propose(|view, now, ids| {
                let change = step(view, now, ids).map_err(super::issue::refused)?;
                Ok((change.into_iter().collect(), ()))
            })
            .await;
        if let Err(error) = written {
            debug!(%error, "the rotation of the root certificate waits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        store::{Store, Transaction},
    };

    const NOW: Timestamp = Timestamp(1_795_219_200_000_000_000);

    #[test]
    fn a_rotation_waits_for_every_node_and_then_rests() {
        let mut cluster = fixture::cluster();
        let old = Authority::generate(NOW).unwrap();
        cluster.tls_info = old.tls_info().unwrap();
        cluster.ca_key = old.key().to_owned();
        cluster.spec.ca_config.force_rotate = 1;
        let mut store = Store::new();
        let mut index = 0;
        let mut commit = |store: &mut Store, changes: Vec<Change>| {
            index += 1;
            let transaction = Transaction { now: NOW, changes };
            store.apply(index, &transaction).unwrap();
        };
        let first = vec![Change::put(cluster), Change::put(fixture::node(1))];
        commit(&mut store, first);
        let mut ids = IdSource::seeded(1);

        let begun = step(&store.view(), NOW, &mut ids).unwrap().unwrap();
        commit(&mut store, vec![begun]);
        assert_eq!(step(&store.view(), NOW, &mut ids).unwrap(), None);
        let view = store.view();
        let cluster = view.cluster().unwrap();
        assert!(trusted(cluster).starts_with(old.certificate()));
        assert_ne!(trusted(cluster), old.certificate());

        let mut node = Node::clone(view.nodes().next().unwrap());
        assert!(is_stale(cluster, &node));
        node.certificate = epoch(cluster);
        commit(&mut store, vec![Change::put(node)]);
        let ended = step(&store.view(), NOW, &mut ids).unwrap().unwrap();
        commit(&mut store, vec![ended]);
        assert_eq!(step(&store.view(), NOW, &mut ids).unwrap(), None);
        let view = store.view();
        let cluster = view.cluster().unwrap();
        assert_ne!(cluster.tls_info.trust_root, old.certificate());
        let token: JoinToken = cluster.join_tokens.worker.parse().unwrap();
        assert!(token.knows(&cluster.tls_info.trust_root));
    }
}
