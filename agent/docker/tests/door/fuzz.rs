//! Bodies and query strings that nobody meant, on every endpoint of ours.

use serde_json::{Value, json};

use crate::{bed::Bed, cluster::FakeNode};

/// A series of numbers, the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 16] = [
            "",
            "x",
            "web",
            "0",
            "-1",
            "99999999999999999999",
            "{{",
            "{{.Task.Slot}}",
            "a=b",
            "\u{0}",
            "10.0.0.0/8",
            "::/0",
            "true",
            "../..",
            "e\u{301}\u{202e}",
            "%zz",
        ];
        TEXTS[self.below(TEXTS.len())].to_owned()
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 9 }) {
            0 => Value::Null,
            1 => true.into(),
            2 => (self.below(100_000) as i64 - 50_000).into(),
            3 => u64::MAX.into(),
            4 => i64::MIN.into(),
            5 => 1.5e300.into(),
            6 => self.text().into(),
            7 => (0..self.below(3)).map(|_| self.value(depth - 1)).collect(),
            _ => {
                let mut map = serde_json::Map::new();
                for _ in 0..self.below(3) {
                    map.insert(self.text(), self.value(depth - 1));
                }
                map.into()
            }
        }
    }

    /// Replaces something somewhere in `value`.
    fn mutate(&mut self, value: &mut Value) {
        if self.below(4) > 0 {
            match value {
                Value::Object(map) if !map.is_empty() => {
                    let at = self.below(map.len());
                    if let Some(inner) = map.values_mut().nth(at) {
                        return self.mutate(inner);
                    }
                }
                Value::Array(list) if !list.is_empty() => {
                    let at = self.below(list.len());
                    return self.mutate(&mut list[at]);
                }
                _ => {}
            }
        }
        *value = self.value(2);
    }
}

fn seeds() -> [(&'static str, Value); 12] {
    let service = json!({
        "Name": "f", "Labels": {"a": "b"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "a", "Args": ["x"], "Env": ["A=1"], "Hostname": "h",
                "Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b"}],
                "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1_000_000},
                "Secrets": [{"SecretID": "0000000000000000000000001", "SecretName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}}],
                "Configs": [{"ConfigID": "0000000000000000000000001", "ConfigName": "s", "File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}}],
                "DNSConfig": {}, "Ulimits": [{"Name": "n", "Hard": 1, "Soft": 1}]},
            "Resources": {"Limits": {"NanoCPUs": 1_000_000}, "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "g", "Value": 1}}]}},
            "RestartPolicy": {"Condition": "any", "Delay": 1},
            "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}]},
            "Networks": [{"Target": "n"}], "LogDriver": {"Name": "json-file", "Options": {"a": "b"}},
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "Order": "stop-first", "MaxFailureRatio": 0.5},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]}
    });
    let cluster = json!({"Name": "default", "Labels": {}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {"ElectionTick": 10}, "CAConfig": {"NodeCertExpiry": 0}});
    let secret = json!({"Name": "s", "Labels": {"a": "b"}, "Data": "YQ=="});
    let network = json!({"Name": "n", "Driver": "overlay", "Options": {"a": "b"}, "Labels": {},
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1"}]}});
    [
        ("/services/create", service.clone()),
        ("/services/web/update?version=1", service),
        (
            "/nodes/node1/update?version=1",
            json!({"Role": "worker", "Availability": "active", "Labels": {}}),
        ),
        ("/swarm/update?version=9", cluster.clone()),
        (
            "/swarm/init",
            json!({"ListenAddr": "", "AdvertiseAddr": "eth0", "DefaultAddrPool": ["10.0.0.0/8"], "SubnetSize": 24, "Spec": cluster}),
        ),
        (
            "/swarm/join",
            json!({"RemoteAddrs": ["a"], "JoinToken": "t"}),
        ),
        ("/swarm/unlock", json!({"UnlockKey": "k"})),
        ("/secrets/create", secret.clone()),
        ("/configs/create", secret),
        ("/networks/create", network),
        (
            "/networks/ingress/connect",
            json!({"Container": "c", "EndpointConfig": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}),
        ),
        (
            "/networks/ingress/disconnect",
            json!({"Container": "c", "Force": true}),
        ),
    ]
}

#[tokio::test]
async fn odd_bodies_are_answered() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut chance = Chance(7);
    for round in 0..250 {
        for (path, mut body) in seeds() {
            chance.mutate(&mut body);
            if round % 5 == 0 {
                chance.mutate(&mut body);
            }
            let text = body.to_string();
            let (status, answer) = bed.text("POST", path, &text).await;
            assert!((200..600).contains(&status), "{path} {text}: {answer}");
        }
    }
    assert_eq!(bed.get("/nodes").await.0, 200);
}

#[tokio::test]
async fn odd_questions_are_answered() {
    let bed = Bed::new(FakeNode::manager()).await;
    let mut chance = Chance(11);
    let paths = [
        "/nodes",
        "/services",
        "/tasks",
        "/secrets",
        "/configs",
        "/networks",
        "/networks/ingress",
        "/services/web",
        "/services/web/logs",
        "/swarm",
        "/info",
        "/version",
        "/_ping",
    ];
    let keys = [
        "name",
        "id",
        "label",
        "node",
        "service",
        "role",
        "desired-state",
        "mode",
        "type",
        "until",
    ];
    for round in 0..150 {
        for path in paths {
            let mut filters = serde_json::Map::new();
            for _ in 0..chance.below(3) {
                let key = keys[chance.below(keys.len())].to_owned();
                let value = if round % 2 == 0 {
                    json!({chance.text(): true})
                } else {
                    chance.value(2)
                };
                filters.insert(key, value);
            }
            let filters = Value::Object(filters).to_string();
            let escaped: String = filters.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let more = [
                "status",
                "insertDefaults",
                "tail",
                "since",
                "stdout",
                "scope",
                "verbose",
            ];
            let more = more[chance.below(more.len())];
            let value: String = chance
                .text()
                .bytes()
                .map(|byte| format!("%{byte:02X}"))
                .collect();
            let path = format!("{path}?filters={escaped}&{more}={value}");
            let (status, answer) = bed.text("GET", &path, "").await;
            assert!((200..600).contains(&status), "{path}: {answer}");
        }
    }
}
