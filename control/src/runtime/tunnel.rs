//! Tunnels to the front doors of nodes: asked for through the leader, offered by the node.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, Tunnel, TunnelAsk, TunnelToken,
    dispatcher::ManagerMessage,
};
use weft_types::NodeId;

use super::{Leadership, Manager, propose::ProposeError};

/// How long a node may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits for which node's tunnel.
#[derive(Clone, Default)]
pub(crate) struct Tunnels(Arc<Mutex<HashMap<TunnelToken, Wish>>>);

struct Wish {
    node: NodeId,
    taker: oneshot::Sender<Tunnel>,
}

/// A wish that is forgotten when nobody waits any more.
struct Waiting<'a> {
    tunnels: &'a Tunnels,
    token: TunnelToken,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.tunnels.wishes().remove(&self.token);
    }
}

impl Tunnels {
    fn wishes(&self) -> MutexGuard<'_, HashMap<TunnelToken, Wish>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, node: NodeId) -> (Waiting<'_>, oneshot::Receiver<Tunnel>) {
        let token = TunnelToken(rand::random());
        let (taker, tunnel) = oneshot::channel();
        self.wishes().insert(token, Wish { node, taker });
        let waiting = Waiting {
            tunnels: self,
            token,
        };
        (waiting, tunnel)
    }

    /// Hands `tunnel`, which `node` offers, to who wished it. It is closed if nobody did, or wished
    /// it of another node.
    pub(crate) fn deliver(&self, node: NodeId, token: TunnelToken, tunnel: Tunnel) {
        let wish = {
            let mut wishes = self.wishes();
            match wishes.get(&token) {
                Some(wish) if wish.node == node => wishes.remove(&token),
                _ => None,
            }
        };
        match wish {
            // Whoever wished it may have gone.
            Some(wish) => drop(wish.taker.send(tunnel)),
            None => tracing::debug!(%node, "a tunnel that nobody wished"),
        }
    }
}

fn silent(node: NodeId) -> ControlError {
    ControlError::unavailable(format!(
        "node {node} did not open a way to its front door within {} s; see `docker node ls`",
        PATIENCE.as_secs()
    ))
}

impl Manager {
    /// A connection to the front door of `node`.
    pub(super) async fn dig(&self, node: NodeId) -> Result<Tunnel, ControlError> {
        let (waiting, tunnel) = self.tunnels.open(node);
        let ask = TunnelAsk {
            token: waiting.token,
            manager: self.config.advertise.to_string(),
        };
        let offered = async {
            self.call(ControlRequest::Tunnel { node, ask }).await?;
            tunnel.await.map_err(|_| silent(node))
        };
        timeout(PATIENCE, offered)
            .await
            .unwrap_or_else(|_| Err(silent(node)))
    }

    /// Asks `node` over its session to offer a tunnel; only on the leader, where the sessions end.
    pub(super) fn pass_on(
        &self,
        node: NodeId,
        ask: &TunnelAsk,
    ) -> Result<ControlReply, ProposeError> {
        if self.leadership() != Leadership::Here {
            return Err(ProposeError::NotLeader);
        }
        let session = self.sessions.get(node);
        let message = ManagerMessage::Tunnel(ask.clone());
        match session.map(|session| session.outbox.try_send(Ok(message))) {
            Some(Ok(())) => Ok(ControlReply::Done),
            Some(Err(_)) | None => Err(ControlError::unavailable(format!(
                "node {node} is not connected; see `docker node ls`"
            ))
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use weft_types::Id;

    use super::*;

    #[tokio::test]
    async fn only_the_node_that_was_asked_may_answer() {
        let tunnels = Tunnels::default();
        let (asked, other) = (Id::numbered(1), Id::numbered(2));
        let (waiting, mut tunnel) = tunnels.open(asked);
        let offer = || -> Tunnel { Box::new(tokio::io::duplex(8).0) };
        tunnels.deliver(other, waiting.token, offer());
        tunnels.deliver(asked, TunnelToken([0; 16]), offer());
        assert!(tunnel.try_recv().is_err());
        tunnels.deliver(asked, waiting.token, offer());
        assert!(tunnel.try_recv().is_ok());
        tunnels.deliver(asked, waiting.token, offer());
        drop(waiting);
        assert!(tunnels.wishes().is_empty());
    }
}
