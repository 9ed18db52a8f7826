//! Users' own containers on swarm networks, with pretend managers, containers and network.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::fixture::{task, wait_for};
use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use weft_agent::{
    Glance,
    guest::{
        Wish,
        keep::{Addresses, Containers, Guests, GuestsConfig, Heard, Look, Managers},
        wishes_of,
    },
    journal::Journal,
    network::fake::FakeWiring,
    task::Failure,
};
use weft_proto::{ControlError, ControlReply, ControlRequest, ErrorCode};
use weft_types::{NetworkId, NodeId, TaskId, TaskState};

/// Containers and managers in memory.
#[derive(Default)]
struct World {
    containers: Mutex<BTreeMap<String, Look>>,
    heard: Mutex<Vec<mpsc::Sender<Heard>>>,
    /// Addresses given: container and network by task.
    given: Mutex<BTreeMap<TaskId, (String, String)>>,
    made: Mutex<u128>,
    /// No manager answers.
    alone: Mutex<bool>,
    led: Mutex<Vec<String>>,
    told: Mutex<Vec<Addresses>>,
}

#[async_trait]
impl Containers for World {
    async fn look(&self, container: &str) -> Result<Option<Look>, Failure> {
        Ok(self
            .containers
            .lock()
            .expect("nobody panicked")
            .get(container)
            .cloned())
    }

    async fn lead_to_resolver(&self, container: &str) -> Result<(), Failure> {
        self.led
            .lock()
            .expect("nobody panicked")
            .push(container.to_owned());
        Ok(())
    }

    async fn lead_away(&self, container: &str) -> Result<(), Failure> {
        self.led
            .lock()
            .expect("nobody panicked")
            .retain(|led| led != container);
        Ok(())
    }

    async fn tell_addresses(&self, _: &str, addresses: &Addresses) -> Result<(), Failure> {
        let told = addresses.clone();
        self.told.lock().expect("nobody panicked").push(told);
        Ok(())
    }

    async fn listen(&self) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(16);
        // Never full: it is new.
        let _sent = sender.try_send(Heard::Resync);
        self.heard.lock().expect("nobody panicked").push(sender);
        receiver
    }
}

#[async_trait]
impl Managers for World {
    async fn ask(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        if *self.alone.lock().expect("nobody panicked") {
            return Err(ControlError::unavailable("nobody"));
        }
        let mut given = self.given.lock().expect("nobody panicked");
        match request {
            ControlRequest::AttachNetwork {
                container_id,
                network,
                ..
            } => {
                if network == "closed" {
                    let text = "network closed not manually attachable";
                    return Err(ControlError::new(ErrorCode::PermissionDenied, text));
                }
                let pair = (container_id, network);
                if given.values().any(|known| *known == pair) {
                    return Err(ControlError::exists("already attached"));
                }
                let mut made = self.made.lock().expect("nobody panicked");
                *made += 1;
                let mut task = task(*made, TaskState::Running);
                let attachment = serde_json::json!({
                    "NetworkID": NetworkId::numbered(*made), "Addresses": ["10.0.1.7/24"],
                });
                task.networks_attachments
                    .push(serde_json::from_value(attachment).expect("an attachment"));
                given.insert(task.id, pair);
                Ok(ControlReply::Tasks(vec![Arc::new(task)]))
            }
            ControlRequest::DetachNetwork(task) => {
                let gone = given.remove(&task);
                gone.map(|_| ControlReply::Done)
                    .ok_or_else(|| ControlError::not_found("no attachment"))
            }
            other => panic!("a node does not ask {other:?}"),
        }
    }
}

impl World {
    fn runs(&self, container: &str, pid: i64, wishes: &str) {
        let look = Look {
            pid: Some(pid),
            name: "mine".to_owned(),
            wishes: wishes_of(wishes),
            ..Look::default()
        };
        let mut containers = self.containers.lock().expect("nobody panicked");
        containers.insert(container.to_owned(), look);
    }

    fn stops(&self, container: &str) {
        let mut containers = self.containers.lock().expect("nobody panicked");
        containers.get_mut(container).expect("it is there").pid = None;
    }

    fn tell(&self, container: &str) {
        let heard = Heard::Container {
            id: container.to_owned(),
            wishes: true,
        };
        let mut listeners = self.heard.lock().expect("nobody panicked");
        listeners.retain(|listener| listener.try_send(heard.clone()).is_ok());
    }

    fn networks(&self) -> Vec<String> {
        let given = self.given.lock().expect("nobody panicked");
        given.values().map(|(_, network)| network.clone()).collect()
    }
}

struct Bed {
    state: tempfile::TempDir,
    world: Arc<World>,
    wiring: Arc<FakeWiring>,
    glance: watch::Sender<Glance>,
}

impl Bed {
    fn new() -> Self {
        Self {
            state: tempfile::tempdir().expect("a directory"),
            world: Arc::default(),
            wiring: Arc::default(),
            glance: watch::Sender::default(),
        }
    }

    fn guests(&self) -> Arc<Guests> {
        Guests::new(GuestsConfig {
            node: NodeId::numbered(1),
            journal: Journal::open(self.state.path()).expect("a journal"),
            containers: Arc::clone(&self.world) as _,
            wiring: Arc::clone(&self.wiring) as _,
            managers: Arc::clone(&self.world) as _,
            sweep_period: std::time::Duration::from_millis(20),
        })
    }

    fn run(&self, guests: &Arc<Guests>) -> tokio::task::JoinHandle<()> {
        tokio::spawn(Arc::clone(guests).run(self.glance.subscribe()))
    }

    fn sandboxes(&self) -> usize {
        self.wiring.held().sandboxes.len()
    }

    async fn attach(&self, guests: &Guests, network: &str) -> Result<(), ControlError> {
        let wish = Wish {
            network: network.to_owned(),
            ..Wish::default()
        };
        guests.attach("c1", wish, &Glance::default()).await
    }
}

const FRONT: &str = r#"[{"Network":"front","Name":"front","Aliases":[],"Addresses":[]}]"#;

#[tokio::test]
async fn a_running_container_comes_onto_networks_and_off_them() {
    let bed = Bed::new();
    bed.world.runs("c1", 7, "");
    let guests = bed.guests();
    bed.attach(&guests, "front").await.expect("attached");
    bed.attach(&guests, "back").await.expect("attached");
    assert_eq!(bed.sandboxes(), 1, "one namespace, one sandbox");
    assert_eq!(guests.containers().len(), 2);
    assert_eq!(
        bed.world.led.lock().expect("nobody panicked")[..],
        ["c1", "c1"]
    );
    bed.attach(&guests, "front").await.expect("the same again");
    let refusal = bed.attach(&guests, "closed").await.expect_err("a refusal");
    assert_eq!(refusal.code, ErrorCode::PermissionDenied);
    assert_eq!(bed.world.networks(), ["front", "back"]);
    let net = Glance::default();
    guests.detach("c1", "front", &net).await.expect("detached");
    assert_eq!(
        (bed.world.networks(), bed.sandboxes()),
        (vec!["back".to_owned()], 1)
    );
    let twice = guests.detach("c1", "front", &net).await;
    assert!(twice.is_err(), "it is on it no more");
    guests.detach("c1", "back", &net).await.expect("detached");
    let told = std::mem::take(&mut *bed.world.told.lock().expect("nobody panicked"));
    let counts: Vec<_> = told.iter().map(|a| (a.before.len(), a.now.len())).collect();
    assert_eq!(counts, [(0, 1), (1, 2), (2, 1), (1, 0)], "{told:?}");
    assert_eq!((bed.world.networks().len(), bed.sandboxes()), (0, 0));
    assert!(guests.containers().is_empty() && guests.sandboxes().borrow().is_empty());
}

#[tokio::test]
async fn a_container_of_the_engine_s_networks_keeps_them_beside() {
    let bed = Bed::new();
    bed.world.runs("c1", 7, "");
    let on = |networks: &[&str]| {
        let mut containers = bed.world.containers.lock().expect("nobody panicked");
        let look = containers.get_mut("c1").expect("it is there");
        look.networks = networks.iter().map(|&name| name.to_owned()).collect();
        look.servers = vec!["192.0.2.9".to_owned()];
    };
    on(&["mine"]);
    let guests = bed.guests();
    let net = Glance::default();
    guests
        .settle("c1", &net)
        .await
        .expect("it wishes for nothing");
    assert_eq!(bed.sandboxes(), 0);
    bed.attach(&guests, "front").await.expect("attached");
    guests.settle("c1", &net).await.expect("nothing to do");
    let made = std::mem::take(&mut bed.wiring.held().made);
    let [made] = &made[..] else {
        panic!("made once: {made:?}")
    };
    // Whom its resolver asks where the engine has none for it.
    let wished = made.spec.container_spec.clone().unwrap_or_default();
    let servers = wished.dns_config.and_then(|dns| dns.nameservers);
    assert_eq!(servers.as_deref(), Some(&["192.0.2.9".to_owned()][..]));
    // The engine's networks have gone, and its way out with them.
    on(&[]);
    guests.settle("c1", &net).await.expect("made anew");
    assert_eq!(bed.wiring.held().made.len(), 1);
    guests.detach("c1", "front", &net).await.expect("detached");
    assert!(
        bed.world.led.lock().expect("nobody panicked").is_empty(),
        "led away again"
    );
}

#[tokio::test]
async fn a_container_that_starts_by_itself_gets_what_it_was_made_with() {
    let bed = Bed::new();
    let guests = bed.guests();
    let _work = bed.run(&guests);
    wait_for("somebody to listen", || {
        !bed.world.heard.lock().expect("nobody panicked").is_empty()
    })
    .await;
    bed.world.runs("c1", 7, FRONT);
    bed.world.tell("c1");
    wait_for("its sandbox", || bed.sandboxes() == 1).await;
    // It ends: its address is free for others.
    bed.world.stops("c1");
    bed.world.tell("c1");
    wait_for("its address to be given back", || {
        bed.world.networks().is_empty()
    })
    .await;
    wait_for("its sandbox to go", || bed.sandboxes() == 0).await;
    // It is started again.
    bed.world.runs("c1", 8, FRONT);
    bed.world.tell("c1");
    wait_for("its sandbox again", || bed.sandboxes() == 1).await;
    bed.world
        .containers
        .lock()
        .expect("nobody panicked")
        .clear();
    bed.world.tell("c1");
    wait_for("nothing to be left", || {
        guests.containers().is_empty() && bed.sandboxes() == 0
    })
    .await;
    assert!(
        Journal::open(bed.state.path())
            .expect("a journal")
            .load_guests()
            .is_empty()
    );
}

#[tokio::test]
async fn a_container_that_has_ended_already_is_no_failure() {
    let bed = Bed::new();
    bed.world.runs("c1", 7, FRONT);
    let guests = bed.guests();
    bed.attach(&guests, "front").await.expect("attached");
    bed.world.stops("c1");
    bed.attach(&guests, "front").await.expect("nothing to do");
    let closed = bed.attach(&guests, "closed").await;
    assert!(closed.is_err(), "refused before it starts");
}

#[tokio::test]
async fn what_is_said_of_a_container_before_it_starts_counts() {
    let bed = Bed::new();
    let guests = bed.guests();
    let net = Glance::default();
    let alias = Wish {
        network: "front".to_owned(),
        aliases: vec!["handmade".to_owned()],
        ..Wish::default()
    };
    // It was made on the network, and is put there once more, by another name.
    bed.world.runs("c1", 7, FRONT);
    bed.world.stops("c1");
    guests
        .attach("c1", alias.clone(), &net)
        .await
        .expect("amended");
    bed.world.runs("c1", 7, FRONT);
    guests.start("c1", &net).await.expect("started");
    assert_eq!(bed.world.networks(), ["front"]);
    let again = guests.attach("c1", alias.clone(), &net).await;
    assert!(again.is_ok(), "as it was amended, not as it was made");
    // While it runs it cannot be amended.
    assert!(bed.attach(&guests, "front").await.is_err());
    // Taken off, it stays off when it is started again.
    guests.detach("c1", "front", &net).await.expect("detached");
    guests.start("c1", &net).await.expect("started");
    assert!(bed.world.networks().is_empty());
}

#[tokio::test]
async fn a_restarted_agent_takes_it_up_with_the_address_it_had() {
    let bed = Bed::new();
    bed.world.runs("c1", 7, FRONT);
    let before = bed.guests();
    bed.attach(&before, "front").await.expect("attached");
    let shown = before.containers();
    drop(before);
    bed.wiring.held().sandboxes.clear();
    *bed.world.alone.lock().expect("nobody panicked") = true;
    let after = bed.guests();
    assert_eq!(after.containers(), shown);
    assert_eq!(
        after.sandboxes().borrow().len(),
        1,
        "nobody may remove it meanwhile"
    );
    let _work = bed.run(&after);
    wait_for("its sandbox, with no manager in sight", || {
        bed.sandboxes() == 1
    })
    .await;
}

#[tokio::test]
async fn what_no_manager_heard_is_given_back_later() {
    let bed = Bed::new();
    bed.world.runs("c1", 7, "");
    let guests = bed.guests();
    bed.attach(&guests, "front").await.expect("attached");
    *bed.world.alone.lock().expect("nobody panicked") = true;
    let detached = guests.detach("c1", "front", &Glance::default()).await;
    detached.expect("detached all the same");
    assert_eq!(bed.world.networks(), ["front"]);
    *bed.world.alone.lock().expect("nobody panicked") = false;
    let given = bed.world.given.lock().expect("nobody panicked").clone();
    let told = given
        .into_iter()
        .map(|(task, (container, _))| (task, container));
    bed.glance.send_modify(|glance| {
        glance.attachments = Arc::new(told.collect());
        glance.knows_all = true;
    });
    let _work = bed.run(&guests);
    wait_for("the address to be given back", || {
        bed.world.networks().is_empty()
    })
    .await;
}
