//! Joining a swarm: at once if a manager answers, in the background where none does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};
use weft_docker::{JoinRequest, LocalState};
use weft_proto::{
    ControlError, ErrorCode,
    dial::{self, JoinWish, Joined},
    identity::Credentials,
};
use weft_types::{NodeId, node::Role};

use crate::{
    membership::{Membership, Standing, WELCOME_LIMIT, unknown},
    place::Settings,
    reach::{addresses, remote},
    role,
    seat::Seat,
};

/// How long managers that refuse a connection are asked again.
const REFUSED_LIMIT: Duration = Duration::from_secs(10);
/// How long silent ones are waited for before the user is told that it goes on in the background.
const SILENT_LIMIT: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// Docker's words.
const GOES_ON: &str = "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.";

/// How one round of asking ended without an answer.
enum Failed {
    /// Said no, for good.
    Refused(ControlError),
    /// Cannot be reached.
    Unreached(ControlError),
    /// Nobody says anything.
    Silent,
}

impl Membership {
    /// Joins; where no manager says anything in 20 s, goes on in the background.
    pub(crate) async fn join_swarm(
        self: &Arc<Self>,
        request: JoinRequest,
    ) -> Result<(), ControlError> {
        let _one = self.change.lock().await;
        self.refuse_member().await?;
        let mut remotes = Vec::new();
        for text in &request.remote_addrs {
            remotes.push(remote(text).await?);
        }
        if remotes.is_empty() {
            return Err(ControlError::invalid(
                "must provide at least one remote address of a node to join",
            ));
        }
        let mut settings = addresses(
            &request.listen_addr,
            &request.advertise_addr,
            &request.data_path_addr,
            remotes.first().copied(),
        )?;
        settings.managers = remotes;
        let wish = JoinWish {
            token: request.join_token,
            availability: request.availability,
            advertise_addr: settings.advertise.to_string(),
        };
        self.amend(|now| {
            now.state = LocalState::Pending;
            now.joining = Some(settings.clone());
        });
        match ask_for_long(&settings.managers, &wish).await {
            Ok(joined) => self.become_member(settings, joined).await,
            Err(Failed::Refused(error) | Failed::Unreached(error)) => {
                self.amend(|now| *now = Standing::default());
                Err(error)
            }
            Err(Failed::Silent) => {
                let this = Arc::clone(self);
                let work = tokio::spawn(async move { this.go_on_joining(settings, wish).await });
                self.amend(|now| now.watcher = Some(work.abort_handle()));
                Err(ControlError::new(ErrorCode::Unavailable, GOES_ON))
            }
        }
    }

    /// Asks until somebody answers; ended by `leave`.
    async fn go_on_joining(self: Arc<Self>, settings: Settings, wish: JoinWish) {
        let answer = loop {
            match ask_once(&settings.managers, &wish).await {
                Ok(joined) => break Ok(joined),
                Err(Failed::Refused(error)) => break Err(error),
                Err(Failed::Unreached(_) | Failed::Silent) => sleep(PAUSE).await,
            }
        };
        let _one = self.change.lock().await;
        let joined = match answer {
            Ok(joined) => {
                // This very task is the watcher, and is replaced by the member's.
                self.amend(|now| now.watcher = None);
                self.become_member(settings, joined).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = joined {
            tracing::error!(%error, "cannot join the swarm");
            self.amend(|now| {
                *now = Standing::default();
                now.state = LocalState::Error;
                now.error = format!("{error}; run `docker swarm leave --force` and join anew");
            });
        }
    }

    /// Takes up a membership that was just given.
    async fn become_member(
        self: &Arc<Self>,
        settings: Settings,
        joined: Joined,
    ) -> Result<(), ControlError> {
        let (node, role) = (joined.identity.node, joined.identity.role);
        match self.join_as(settings, joined).await {
            Ok(seat) => {
                if !seat.await_welcome(WELCOME_LIMIT).await {
                    tracing::warn!("joined, but no manager has welcomed this node yet; going on");
                }
                Ok(())
            }
            Err(error) => {
                let _kept_from_nothing = self.place.forget();
                self.amend(|now| *now = Standing::default());
                Err(unknown(error.context(left_behind(node, role))))
            }
        }
    }

    async fn join_as(
        self: &Arc<Self>,
        mut settings: Settings,
        joined: Joined,
    ) -> anyhow::Result<Arc<Seat>> {
        let identity = joined.identity;
        // Until the first session these are all that it knows.
        for addr in joined.managers {
            if !settings.managers.contains(&addr) {
                settings.managers.push(addr);
            }
        }
        let dir = self.place.state_dir();
        identity.save(dir)?;
        let is_manager = identity.role == Role::Manager;
        let credentials = Credentials::new(identity)?;
        let manager = if is_manager {
            let manager = role::start(dir, &settings, &credentials, &settings.managers).await?;
            settings.managers.push(settings.advertise);
            Some(manager)
        } else {
            None
        };
        self.place.save_settings(&settings)?;
        self.sit(settings, credentials, manager)
    }
}

/// What a join that fails after its certificate leaves in the swarm, and how to be rid of it.
fn left_behind(node: NodeId, role: Role) -> String {
    let demote = match role {
        Role::Manager => format!("`docker node demote {node}` and "),
        Role::Worker => String::new(),
    };
    format!(
        "cannot take up the membership that the swarm has given; it lists this attempt as node {node} \
         without a name: run {demote}`docker node rm {node}` on a manager, and join again"
    )
}

/// Asks for as long as the user is kept waiting.
async fn ask_for_long(remotes: &[SocketAddr], wish: &JoinWish) -> Result<Joined, Failed> {
    let begun = Instant::now();
    loop {
        let failed = match timeout_at(begun + SILENT_LIMIT, ask_once(remotes, wish)).await {
            Ok(Ok(joined)) => return Ok(joined),
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Silent,
        };
        let limit = match failed {
            Failed::Refused(_) => Duration::ZERO,
            Failed::Unreached(_) => REFUSED_LIMIT,
            Failed::Silent => SILENT_LIMIT,
        };
        if begun.elapsed() + PAUSE >= limit {
            return Err(failed);
        }
        sleep(PAUSE).await;
    }
}

/// Asks each of `remotes` for a certificate until one gives it or refuses for good.
async fn ask_once(remotes: &[SocketAddr], wish: &JoinWish) -> Result<Joined, Failed> {
    let mut failed = Failed::Silent;
    for addr in remotes {
        match dial::join(*addr, wish).await {
            Ok(joined) => return Ok(joined),
            Err(error) if !error.is_transient() => return Err(Failed::Refused(error.into())),
            Err(error) if error.is_silence() => {}
            Err(error) => failed = Failed::Unreached(error.into()),
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_after_his_certificate_is_told_what_is_left_of_him() {
        let node = NodeId::numbered(7);
        let worker = left_behind(node, Role::Worker);
        assert!(worker.contains(&format!("as node {node} without a name: run `docker node rm {node}` on a manager, and join again")), "{worker}");
        // A manager is not removed before it is demoted.
        let manager = left_behind(node, Role::Manager);
        assert!(
            manager.contains(&format!(
                "run `docker node demote {node}` and `docker node rm {node}` on"
            )),
            "{manager}"
        );
    }
}
