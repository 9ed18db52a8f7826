//! The cluster socket as clients meet it: real HTTP over unix sockets, in front of pretended hosts.

#![expect(clippy::unwrap_used, reason = "a test ends where its world is broken")]

#[path = "hosts/cut.rs"]
mod cut;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::duplex,
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc},
    task::JoinHandle,
};
use weft_docker::{
    ClusterConfig, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl, NotManager,
    Policy, Strategy, serve_cluster,
};
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, Event, LogItem, LogSelector,
    ManagerStanding, Tunnel,
};
use weft_types::{Id, NodeId, node::Node};

/// How a pretended host is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Well,
    /// Takes connections and never says a word.
    Silent,
    /// Cannot be reached.
    Gone,
    /// Breaks off when it is asked to restart a container, or in the middle of a log.
    BreaksOff,
}

/// Three hosts: this one, one that is well, and one that is as the test wants it.
struct World {
    third: Mutex<Kind>,
    folder: PathBuf,
    /// What each host was asked, as `METHOD path`.
    asked: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
}

fn node(number: u64) -> Node {
    let text = json!({
        "ID": NodeId::numbered(number.into()).to_string(), "Version": {"Index": 1},
        "CreatedAt": "2026-11-21T00:00:00Z", "UpdatedAt": "2026-11-21T00:00:00Z",
        "Spec": {"Role": "worker", "Availability": "active", "Labels": {"zone": format!("z{number}")}},
        "Description": {"Hostname": format!("n{number}"),
            "Engine": {"EngineVersion": format!("20.10.{number}")},
            "Resources": {"NanoCPUs": 2_000_000_000_u64, "MemoryBytes": 1 << 30}},
        "Status": {"State": "ready", "Addr": format!("192.0.2.1{number}")},
    });
    serde_json::from_value(text).unwrap()
}

fn id(host: u64) -> String {
    format!("{host}").repeat(64)
}

/// How many containers a host was asked to make.
fn made(asked: &BTreeMap<String, Vec<String>>, host: &str) -> usize {
    let asked = asked.get(host).into_iter().flatten();
    asked
        .filter(|said| said.starts_with("POST") && said.ends_with("/containers/create"))
        .count()
}

impl World {
    fn host(
        &self,
        name: String,
    ) -> impl Fn(Request<Incoming>) -> Response<Full<Bytes>> + Clone + use<> {
        let asked = Arc::clone(&self.asked);
        move |request| {
            let path = request.uri().path().to_owned();
            let said = format!("{} {path}", request.method());
            asked
                .lock()
                .unwrap()
                .entry(name.clone())
                .or_default()
                .push(said);
            let number: u64 = name[1..].parse().unwrap();
            let made = made(&asked.lock().unwrap(), &name);
            let own = |nth: usize| format!("a{number}{nth:062}");
            let path = path.strip_prefix("/v1.41").unwrap_or(&path);
            let query = request.uri().query().unwrap_or_default();
            let lacks_image = query.contains("name=rare") && number != 3;
            let answer = match (request.method(), path) {
                // Its container has ended: engines leave it out unless all are asked for.
                (&Method::GET, "/containers/json")
                    if query.contains("limit") && !query.contains("all=1") =>
                {
                    json!([])
                }
                (&Method::GET, "/images/json") if number == 3 => {
                    json!([{"Id": "sha256:1", "RepoTags": ["rare:1"]}])
                }
                (&Method::GET, "/images/json" | "/networks") => json!([]),
                (&Method::GET, "/events") => json!({"scope": "swarm", "Type": "node"}),
                (&Method::POST, path) if path.ends_with("/exec") => json!({"Id": "e".repeat(64)}),
                (&Method::GET, "/containers/json") => {
                    let mut all = vec![json!({
                        "Id": id(number), "Names": [format!("/c{number}"), "/same"], "Created": number,
                        "Labels": {}, "State": "running",
                        "Ports": [{"IP": "0.0.0.0", "PublicPort": 80}],
                    })];
                    all.extend((1..=made).map(|nth| {
                        json!({"Id": own(nth), "Names": [format!("/made{nth}on{number}")],
                            "Created": number, "Labels": {}, "State": "running", "Ports": []})
                    }));
                    json!(all)
                }
                (&Method::GET, "/info") => {
                    json!({"Containers": 1, "NCPU": 2, "Driver": format!("d{number}")})
                }
                (&Method::POST, "/containers/create") => json!({"Id": own(made)}),
                (&Method::GET, path) if path.starts_with("/containers/a") => json!({
                    "Id": path[12..76], "Name": "/made", "HostConfig": {"Memory": 400 << 20},
                    "Config": {}, "NetworkSettings": {"Ports": {}},
                }),
                (&Method::GET, path) if path.ends_with("/json") => json!({
                    "Id": id(number), "Name": "/c", "HostConfig": {}, "Config": {},
                    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0"}]}},
                }),
                _ => json!({"host": name}),
            };
            let mut response = Response::new(Full::new(Bytes::from(format!("{answer}\n"))));
            if lacks_image {
                *response.status_mut() = StatusCode::NOT_FOUND;
            } else if request.method() == Method::POST && path == "/containers/create" {
                *response.status_mut() = StatusCode::CREATED;
            }
            response
        }
    }
}

async fn serve_host(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    host: impl Fn(Request<Incoming>) -> Response<Full<Bytes>>,
) {
    let service = service_fn(|request| {
        let answer = host(request);
        async move { Ok::<_, Infallible>(answer) }
    });
    // Clients may go away at any time.
    let _ = server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[async_trait]
impl ControlApi for World {
    async fn call(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        match request {
            ControlRequest::ListNodes => Ok(ControlReply::Nodes((1..=3).map(node).collect())),
            other => Err(ControlError::unknown(format!("{other:?}"))),
        }
    }

    async fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        broadcast::channel(1).1
    }

    async fn logs(&self, _: LogSelector) -> Result<mpsc::Receiver<LogItem>, ControlError> {
        Err(ControlError::unknown("no logs"))
    }

    async fn standing(&self) -> ManagerStanding {
        ManagerStanding::default()
    }

    async fn tunnel(&self, to: NodeId) -> Result<Tunnel, ControlError> {
        let kind = if to == Id::numbered(3) {
            *self.third.lock().unwrap()
        } else {
            Kind::Well
        };
        let name = if to == Id::numbered(3) { "n3" } else { "n2" };
        let (ours, theirs) = duplex(1 << 16);
        match kind {
            Kind::Well => {
                let host = self.host(name.to_owned());
                tokio::spawn(serve_host(theirs, host));
            }
            Kind::Silent => {
                tokio::spawn(async move {
                    let _held = theirs;
                    std::future::pending::<()>().await;
                });
            }
            Kind::BreaksOff => {
                let host = self.host(name.to_owned());
                tokio::spawn(cut::break_off(theirs, host));
            }
            Kind::Gone => return Err(ControlError::unavailable("it is not connected")),
        }
        Ok(Box::new(ours))
    }
}

struct Manager(Arc<World>);

#[async_trait]
impl NodeControl for Manager {
    async fn init(&self, _: InitRequest) -> Result<NodeId, ControlError> {
        Ok(Id::numbered(1))
    }

    async fn join(&self, _: JoinRequest) -> Result<(), ControlError> {
        Ok(())
    }

    async fn leave(&self, _: bool) -> Result<(), ControlError> {
        Ok(())
    }

    async fn unlock(&self, _: &str) -> Result<(), ControlError> {
        Ok(())
    }

    async fn status(&self) -> LocalStatus {
        LocalStatus {
            state: LocalState::Active,
            node_id: Some(Id::numbered(1)),
            ..LocalStatus::default()
        }
    }

    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager> {
        Ok(Arc::clone(&self.0) as _)
    }
}

struct Bed {
    world: Arc<World>,
    socket: PathBuf,
    tasks: Vec<JoinHandle<()>>,
    _folder: TempDir,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Bed {
    async fn new(third: Kind) -> Self {
        Self::placing(third, Strategy::default()).await
    }

    async fn placing(third: Kind, strategy: Strategy) -> Self {
        let folder = TempDir::new().unwrap();
        let world = Arc::new(World {
            third: Mutex::new(third),
            folder: folder.path().to_owned(),
            asked: Arc::default(),
        });
        let door = world.folder.join("door.sock");
        let listener = UnixListener::bind(&door).unwrap();
        let here = Arc::clone(&world);
        let own_door = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_host(stream, here.host("n1".to_owned())));
            }
        });
        let socket = folder.path().join("cluster.sock");
        let config = ClusterConfig {
            socket: socket.clone(),
            group: Some("0".to_owned()),
            door,
            policy: Policy {
                strategy,
                ..Policy::default()
            },
        };
        let manager = Arc::new(Manager(Arc::clone(&world)));
        let serving = tokio::spawn(async move {
            serve_cluster(config, manager, std::future::pending())
                .await
                .unwrap();
        });
        let bed = Self {
            world,
            socket,
            tasks: vec![own_door, serving],
            _folder: folder,
        };
        bed.wait_open(&bed.socket).await;
        bed
    }

    async fn wait_open(&self, socket: &Path) {
        let open = async {
            while UnixStream::connect(socket).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), open)
            .await
            .expect("the cluster socket opens within 60 s");
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "docker")
            .body(Full::new(Bytes::from(text)))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, Value::Null).await
    }

    fn was_asked(&self, host: &str, what: &str) -> bool {
        let asked = self.world.asked.lock().unwrap();
        asked
            .get(host)
            .is_some_and(|said| said.iter().any(|said| said == what))
    }
}

#[tokio::test]
async fn lists_hold_every_host_s_containers_under_their_hosts_names() {
    let bed = Bed::new(Kind::Well).await;
    let (status, list) = bed.get("/v1.41/containers/json?all=1").await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<&Value> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["Names"][0])
        .collect();
    assert_eq!(names, ["/n3/c3", "/n2/c2", "/n1/c1"]);
    assert_eq!(list[0]["Ports"][0]["IP"], "192.0.2.13");
    let (_, info) = bed.get("/info").await;
    assert_eq!((&info["Containers"], &info["NCPU"]), (&json!(3), &json!(6)));
    assert!(info["SystemStatus"].to_string().contains("n3"), "{info}");
    let (_, filtered) = bed
        .get("/containers/json?filters=%7B%22node%22:[%22n2%22]%7D")
        .await;
    assert_eq!(filtered.as_array().map(Vec::len), Some(1));
    let (_, newest) = bed.get("/containers/json?limit=2").await;
    assert_eq!(newest.as_array().map(Vec::len), Some(2), "ended ones count");
    // One line: the others' would be no JSON behind it.
    let (_, event) = bed.get("/events?since=0&until=1").await;
    assert_eq!(event["Type"], "node", "the swarm's are told once");
}

#[tokio::test]
async fn one_container_s_requests_go_to_its_host() {
    let bed = Bed::new(Kind::Well).await;
    let whole = id(2);
    for reference in ["c2", "n2/c2", "n2/same", &whole, &whole[..12]] {
        let (status, container) = bed.get(&format!("/containers/{reference}/json")).await;
        assert_eq!(status, StatusCode::OK, "{reference}: {container}");
        assert_eq!(container["Node"]["Name"], "n2", "{reference}");
        let port = &container["NetworkSettings"]["Ports"]["80/tcp"][0];
        assert_eq!(port["HostIp"], "192.0.2.12", "{reference}");
    }
    let (_, answer) = bed
        .ask(
            Method::POST,
            "/v1.41/containers/n3/c3/stop?t=1",
            Value::Null,
        )
        .await;
    assert_eq!(answer["host"], "n3");
    let (_, exec) = bed
        .ask(Method::POST, "/containers/c3/exec", json!({"Cmd": ["sh"]}))
        .await;
    let start = format!("/exec/{}/resize", exec["Id"].as_str().unwrap());
    let (_, answer) = bed.ask(Method::POST, &start, json!({})).await;
    assert_eq!(answer["host"], "n3", "what runs beside its program");
    let connect = "/networks/n1/back/connect";
    let (status, refusal) = bed
        .ask(Method::POST, connect, json!({"Container": "c2"}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refusal}");
    let (status, refusal) = bed.get("/containers/same/json").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        refusal["message"]
            .as_str()
            .unwrap()
            .contains("n1/same, n2/same, n3/same")
    );
    let (status, _) = bed.get("/containers/n9/c2/json").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, services) = bed.get("/v1.41/services").await;
    assert_eq!(services["host"], "n1");
}

#[tokio::test]
async fn inspections_and_the_info_say_where_a_host_is_and_what_runs_there() {
    let bed = Bed::new(Kind::Well).await;
    let (_, container) = bed.get("/containers/c2/json").await;
    assert_eq!(
        container["Node"],
        json!({"ID": NodeId::numbered(2).to_string(), "IP": "192.0.2.12", "Addr": "192.0.2.12",
            "Name": "n2", "Cpus": 2, "Memory": 1 << 30, "Labels": {"zone": "z2"}})
    );
    let (_, info) = bed.get("/info").await;
    let rows = info["SystemStatus"].as_array().unwrap().iter();
    let releases = rows.filter(|row| row[0].as_str().unwrap().ends_with(" ServerVersion"));
    let releases: Vec<&Value> = releases.map(|row| &row[1]).collect();
    assert_eq!(releases, ["20.10.1", "20.10.2", "20.10.3"]);
    // So a client that was told no kind of object asks on.
    let (status, refusal) = bed.get("/containers/nosuch/json").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refusal}");
}

#[tokio::test]
async fn new_containers_go_where_their_rules_say() {
    let bed = Bed::new(Kind::Well).await;
    let wish = |env: &str| json!({"Image": "a", "Env": [env], "HostConfig": {}});
    let create = |body| bed.ask(Method::POST, "/v1.41/containers/create?name=x", body);
    let (status, made) = create(wish("constraint:zone==z3")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(bed.was_asked("n3", "POST /v1.41/containers/create"));
    let (status, refusal) = create(wish("constraint:zone==z9")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        refusal["message"],
        "unable to find a node that satisfies the constraint zone==z9"
    );
    let (status, made) = create(wish("constraint:storagedriver==d2")).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(bed.was_asked("n2", "POST /v1.41/containers/create"));
    // Where its image is, if it is not where it would be put.
    let rare = json!({"Image": "rare:1", "HostConfig": {}});
    let (status, made) = bed
        .ask(Method::POST, "/containers/create?name=rare", rare)
        .await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(bed.was_asked("n3", "POST /containers/create"));
    let (status, _) = create(wish("constraint:zone")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = bed
        .ask(Method::POST, "/containers/create?name=c1", wish("A=b"))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn new_containers_go_where_the_strategy_says() {
    let counts = async |strategy, containers: usize, memory: u64| {
        let bed = Bed::placing(Kind::Well, strategy).await;
        for number in 0..containers {
            let body = json!({"Image": "a", "HostConfig": {"Memory": memory}});
            let path = format!("/v1.41/containers/create?name=new{number}");
            let (status, said) = bed.ask(Method::POST, &path, body).await;
            assert_eq!(status, StatusCode::CREATED, "{said}");
        }
        let asked = bed.world.asked.lock().unwrap();
        let mut counts: Vec<usize> = ["n1", "n2", "n3"].map(|host| made(&asked, host)).into();
        counts.sort_unstable();
        counts
    };
    let memory = 400 << 20;
    assert_eq!(counts(Strategy::Spread, 3, memory).await, [1, 1, 1]);
    // Two fit on a host of a GiB.
    assert_eq!(counts(Strategy::Binpack, 3, memory).await, [0, 1, 2]);
    // All on one of three hosts is once in a quarter of a million.
    let random = counts(Strategy::Random, 12, 1).await;
    assert!(random[2] < 12, "{random:?}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_left_out_and_named() {
    for kind in [Kind::Silent, Kind::Gone] {
        let bed = Bed::new(kind).await;
        let answered = tokio::time::timeout(Duration::from_secs(30), async {
            let (_, list) = bed.get("/containers/json").await;
            let (_, info) = bed.get("/info").await;
            (list, info)
        });
        let (list, info) = answered.await.expect("a silent host holds nobody up");
        assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
        assert_eq!(info["Containers"], 2);
        let warnings = info["Warnings"].to_string();
        assert!(warnings.contains("node n3 is left out"), "{warnings}");
        // It is chosen for nothing.
        let body = json!({"Image": "a", "Env": ["constraint:zone==z3"], "HostConfig": {}});
        let (status, _) = bed.ask(Method::POST, "/containers/create", body).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

#[tokio::test]
async fn what_a_hung_host_had_is_listed_as_it_was() {
    let bed = Bed::new(Kind::Well).await;
    // To find a container all hosts are looked at.
    assert_eq!(bed.get("/containers/c3/json").await.0, StatusCode::OK);
    *bed.world.third.lock().unwrap() = Kind::Silent;
    let asked = tokio::time::timeout(Duration::from_secs(30), bed.get("/containers/json?all=1"));
    let (status, list) = asked.await.expect("a hung host holds nobody up");
    assert_eq!(status, StatusCode::OK);
    let list = list.as_array().unwrap();
    let lost = list.iter().filter(|entry| entry["Status"] == "Host Down");
    let lost: Vec<&Value> = lost.map(|entry| &entry["Id"]).collect();
    assert_eq!((list.len(), lost), (3, vec![&json!(id(3))]));
}

#[tokio::test]
async fn a_request_under_way_ends_when_its_way_closes() {
    let bed = Bed::new(Kind::BreaksOff).await;
    let within = async |method, path: &str| {
        let stream = UnixStream::connect(&bed.socket).await.unwrap();
        let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path);
        let request = request
            .header("host", "docker")
            .body(Full::<Bytes>::default());
        let asked = async {
            let response = sender.send_request(request.unwrap()).await.unwrap();
            (response.status(), response.into_body().collect().await)
        };
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await;
        answer.unwrap_or_else(|_| panic!("{path} goes on without a way"))
    };
    // Before there is an answer: who does not answer is named.
    let (status, body) = within(Method::POST, "/containers/c3/restart?t=0").await;
    let body: Value = serde_json::from_slice(&body.unwrap().to_bytes()).unwrap();
    let message = body["message"].as_str().unwrap_or_default();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(
        message.starts_with("The front door of node n3 does not answer"),
        "{body}"
    );
    // In the middle of one: it is cut, not ended as if it were whole.
    let (status, body) = within(Method::GET, "/containers/c3/logs?stdout=1").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.is_err(), "half of a log is shown as all of it");
}
