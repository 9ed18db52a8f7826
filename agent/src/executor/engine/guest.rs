//! Users' own containers, as the engine has them.

use std::{collections::HashMap, fs, io, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bollard::{
    models::{ContainerInspectResponse, EventMessage},
    query_parameters::EventsOptions,
};
use futures::StreamExt;
use tokio::{sync::mpsc, time::sleep};
use weft_dns::resolv_conf::ResolvConf;

use super::{Engine, TASK_LABEL};
use crate::{
    guest::{
        WISHES_LABEL,
        keep::{Containers, Heard, Look},
        wishes_of,
    },
    task::Failure,
};

/// Between two tries to hear an engine that does not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Changes waiting to be taken.
const WAITING: usize = 256;
/// Where the resolver of a sandbox listens.
const RESOLVER: &str = "127.0.0.11";

#[async_trait]
impl Containers for Engine {
    async fn look(&self, container: &str) -> Result<Option<Look>, Failure> {
        let found = Self::look(self, container).await?;
        Ok(found.as_ref().map(look))
    }

    async fn lead_to_resolver(&self, container: &str) -> Result<(), Failure> {
        let found = Self::look(self, container).await?;
        let path = found.and_then(|found| found.resolv_conf_path);
        let Some(path) = path.filter(|path| !path.is_empty()).map(PathBuf::from) else {
            return Ok(());
        };
        lead(&path).map_err(|error| {
            let path = path.display();
            Failure::lasting(format!(
                "cannot lead the container to its resolver in {path}: {error}"
            ))
        })
    }

    async fn listen(&self) -> mpsc::Receiver<Heard> {
        let (heard, receiver) = mpsc::channel(WAITING);
        let engine = self.clone();
        tokio::spawn(async move {
            while !heard.is_closed() {
                follow(&engine, &heard).await;
                sleep(PAUSE).await;
            }
        });
        receiver
    }
}

/// Writes over the file, which the container has mounted: one in its place would not be seen.
fn lead(path: &std::path::Path) -> io::Result<()> {
    let held = fs::read_to_string(path)?;
    if held
        .lines()
        .any(|line| line.trim() == format!("nameserver {RESOLVER}"))
    {
        return Ok(());
    }
    fs::write(path, ResolvConf::parse(&held).for_sandbox(&[], &[]))
}

fn look(found: &ContainerInspectResponse) -> Look {
    let state = found.state.clone().unwrap_or_default();
    let labels = found
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref());
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let mode = found.host_config.as_ref();
    let mode = mode.and_then(|host| host.network_mode.as_deref());
    Look {
        pid: state.pid.filter(|_| state.running == Some(true)),
        name: found
            .name
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches('/')
            .to_owned(),
        wishes: label(WISHES_LABEL)
            .map(|label| wishes_of(label))
            .unwrap_or_default(),
        refusal: refusal(mode.unwrap_or_default(), label(TASK_LABEL).is_some()),
    }
}

/// Why a container with this network mode cannot be on a swarm network.
fn refusal(mode: &str, is_task: bool) -> Option<String> {
    if is_task {
        return Some(
            "this container belongs to a service: change its networks with docker service update"
                .to_owned(),
        );
    }
    match mode {
        "host" => Some("container cannot be disconnected from host network or connected to another network".to_owned()),
        "" | "none" | "default" | "bridge" => None,
        shared if shared.starts_with("container:") => Some(
            "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
        ),
        own => Some(format!(
            "this container is on the engine's network {own}, whose own resolver hides the names of swarm networks: run it with --network NAME of the swarm network instead"
        )),
    }
}

/// Follows one stream of events until it breaks.
async fn follow(engine: &Engine, heard: &mpsc::Sender<Heard>) {
    let Ok(docker) = engine.docker().await else {
        return;
    };
    // A stream towards an engine that is down ends only when it is read.
    if docker.ping().await.is_err() {
        return;
    }
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        (
            "event".to_owned(),
            ["start", "die", "destroy"].map(str::to_owned).to_vec(),
        ),
    ]);
    let options = EventsOptions {
        filters: Some(filters),
        ..EventsOptions::default()
    };
    let mut events = docker.events(Some(options));
    // The stream is opened when it is first polled.
    let mut resynced = Box::pin(async {
        sleep(Duration::from_millis(50)).await;
        heard.send(Heard::Resync).await
    });
    let mut is_resynced = false;
    loop {
        tokio::select! {
            sent = &mut resynced, if !is_resynced => {
                is_resynced = true;
                if sent.is_err() {
                    return;
                }
            }
            () = heard.closed() => return,
            event = events.next() => {
                let Some(Ok(event)) = event else { return };
                if let Some(change) = change(event)
                    && heard.send(change).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

fn change(event: EventMessage) -> Option<Heard> {
    let actor = event.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    if attributes.contains_key(TASK_LABEL) {
        return None;
    }
    Some(Heard::Container {
        id: actor.id?,
        wishes: attributes.contains_key(WISHES_LABEL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_with_a_namespace_of_their_own_are_taken() {
        for mode in ["", "none", "default", "bridge"] {
            assert_eq!(refusal(mode, false), None, "{mode}");
            assert!(refusal(mode, true).is_some());
        }
        for mode in ["host", "container:abc", "mine"] {
            assert!(refusal(mode, false).is_some(), "{mode}");
        }
    }

    #[test]
    fn resolver_settings_are_written_once_and_in_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.53\nsearch example.org\n").expect("a file");
        lead(&path).expect("written");
        let led = fs::read_to_string(&path).expect("a file");
        assert_eq!(
            led,
            "nameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n"
        );
        lead(&path).expect("written again");
        assert_eq!(fs::read_to_string(&path).expect("a file"), led);
    }
}
