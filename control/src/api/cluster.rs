//! The cluster's own settings.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use weft_proto::{ControlError, ControlReply, token::JoinToken};
use weft_types::{Timestamp, cluster::Cluster, cluster::ClusterSpec, validate};

use super::{Answer, in_sequence, refused};
use crate::store::{Draft, IdSource, View};

/// What is to be made anew.
pub(super) struct Rotate {
    pub(super) worker_token: bool,
    pub(super) manager_token: bool,
    pub(super) unlock_key: bool,
}

fn cluster(view: &View) -> Result<&Cluster, ControlError> {
    view.cluster()
        .map(AsRef::as_ref)
        .ok_or_else(|| ControlError::not_found("cluster not found"))
}

pub(super) fn get(view: &View) -> Answer {
    let mut cluster = cluster(view)?.clone();
    cluster.ca_key.clear();
    cluster.unlock_key.clear();
    cluster.spec.ca_config.signing_ca_key.clear();
    Ok((Vec::new(), ControlReply::Cluster(Box::new(cluster))))
}

pub(super) fn unlock_key(view: &View) -> Answer {
    let key = cluster(view)?.unlock_key.clone();
    Ok((Vec::new(), ControlReply::Key(key)))
}

pub(super) fn update(
    view: &View,
    now: Timestamp,
    ids: &mut IdSource,
    version: u64,
    spec: &ClusterSpec,
    rotate: &Rotate,
) -> Answer {
    let stored = cluster(view)?;
    validate::cluster_spec(spec).map_err(refused)?;
    let newest = stored.meta.version;
    // The managers' own writes, as in a rotation of the root, outdate nobody who read the spec.
    let since = stored.spec_version.index;
    if since == 0 || !(since..=newest.index).contains(&version) {
        in_sequence(version, newest)?;
    }
    let token =
        |ids: &mut IdSource| JoinToken::new(&stored.tls_info.trust_root, ids.bytes()).to_string();
    let worker = rotate.worker_token.then(|| token(ids));
    let manager = rotate.manager_token.then(|| token(ids));
    let locks = spec.encryption_config.auto_lock_managers;
    let key = match (locks, stored.unlock_key.is_empty() || rotate.unlock_key) {
        (false, _) => String::new(),
        (true, false) => stored.unlock_key.clone(),
        (true, true) => format!("SWMKEY-1-{}", STANDARD_NO_PAD.encode(ids.bytes::<32>())),
    };
    let mut draft = Draft::new(view, now);
    draft.edit_cluster(|cluster| {
        cluster.spec = spec.clone();
        "default".clone_into(&mut cluster.spec.name);
        cluster.unlock_key = key;
        // Every commit has its own index, and this one's is at least this.
        cluster.spec_version.index = view.index() + 1;
        let tokens = &mut cluster.join_tokens;
        tokens.worker = worker.unwrap_or_else(|| std::mem::take(&mut tokens.worker));
        tokens.manager = manager.unwrap_or_else(|| std::mem::take(&mut tokens.manager));
    });
    Ok((draft.changes(), ControlReply::Done))
}
