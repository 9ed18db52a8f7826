//! What this node asks of the managers for itself, as any node may.

use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::sync::watch;
use weft_agent::{Glance, guest::keep::Managers};
use weft_proto::{ControlError, ControlReply, ControlRequest, dial, identity::Credentials};

/// Asks one manager after the other, its own process's included.
pub(crate) struct Asking {
    pub(crate) credentials: Credentials,
    /// Managers to turn to while none has told of the others.
    pub(crate) known: Vec<SocketAddr>,
    /// Filled once the agent runs.
    pub(crate) glance: watch::Receiver<Option<watch::Receiver<Glance>>>,
}

impl Asking {
    fn managers(&self) -> Vec<SocketAddr> {
        let glance = self.glance.borrow();
        let told = glance
            .iter()
            .flat_map(|glance| glance.borrow().managers.clone());
        let mut all: Vec<SocketAddr> = told.map(|(_, addr)| addr).collect();
        for addr in &self.known {
            if !all.contains(addr) {
                all.push(*addr);
            }
        }
        all
    }
}

#[async_trait]
impl Managers for Asking {
    async fn ask(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        let mut last = ControlError::unavailable("no manager of the swarm is known here");
        for addr in self.managers() {
            let channel = match dial::connect(addr, &self.credentials).await {
                Ok(channel) => channel,
                Err(error) => {
                    last = error.into();
                    continue;
                }
            };
            match dial::dispatcher(channel).ask(request.clone()).await {
                Ok(reply) => return reply.into_inner(),
                Err(status) => last = dial::from_status(&status),
            }
        }
        Err(last)
    }
}
