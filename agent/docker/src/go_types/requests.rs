//! All but services.

use super::{
    Bool, Bytes, DRIVER, DURATION, Go, I64, INT, List, Map, Object, Struct, TEXT, TEXTS, Text, U32,
    U64,
};

pub(crate) static NODE: Struct = Struct(
    "swarm",
    "NodeSpec",
    &[
        ("Name", TEXT),
        ("Labels", Map),
        ("Role", Text("swarm.NodeRole")),
        ("Availability", AVAILABILITY),
    ],
);

const AVAILABILITY: Go = Text("swarm.NodeAvailability");

pub(crate) static SECRET: Struct = Struct(
    "swarm",
    "SecretSpec",
    &[
        ("Name", TEXT),
        ("Labels", Map),
        ("Data", Bytes),
        ("Driver", DRIVER),
        ("Templating", DRIVER),
    ],
);

pub(crate) static CONFIG: Struct = Struct(
    "swarm",
    "ConfigSpec",
    &[
        ("Name", TEXT),
        ("Labels", Map),
        ("Data", Bytes),
        ("Templating", DRIVER),
    ],
);

pub(crate) static CLUSTER: Struct = Struct(
    "swarm",
    "Spec",
    &[
        ("Name", TEXT),
        ("Labels", Map),
        (
            "Orchestration",
            Object(&Struct(
                "swarm",
                "OrchestrationConfig",
                &[("TaskHistoryRetentionLimit", I64)],
            )),
        ),
        (
            "Raft",
            Object(&Struct(
                "swarm",
                "RaftConfig",
                &[
                    ("SnapshotInterval", U64),
                    ("KeepOldSnapshots", U64),
                    ("LogEntriesForSlowFollowers", U64),
                    ("ElectionTick", INT),
                    ("HeartbeatTick", INT),
                ],
            )),
        ),
        (
            "Dispatcher",
            Object(&Struct(
                "swarm",
                "DispatcherConfig",
                &[("HeartbeatPeriod", DURATION)],
            )),
        ),
        (
            "CAConfig",
            Object(&Struct(
                "swarm",
                "CAConfig",
                &[
                    ("NodeCertExpiry", DURATION),
                    ("ExternalCAs", List("[]*swarm.ExternalCA", &EXTERNAL_CA)),
                    ("SigningCACert", TEXT),
                    ("SigningCAKey", TEXT),
                    ("ForceRotate", U64),
                ],
            )),
        ),
        (
            "TaskDefaults",
            Object(&Struct("swarm", "TaskDefaults", &[("LogDriver", DRIVER)])),
        ),
        (
            "EncryptionConfig",
            Object(&Struct(
                "swarm",
                "EncryptionConfig",
                &[("AutoLockManagers", Bool)],
            )),
        ),
    ],
);

const EXTERNAL_CA: Go = Object(&Struct(
    "swarm",
    "ExternalCA",
    &[
        ("Protocol", Text("swarm.ExternalCAProtocol")),
        ("URL", TEXT),
        ("Options", Map),
        ("CACert", TEXT),
    ],
));

pub(crate) static INIT: Struct = Struct(
    "swarm",
    "InitRequest",
    &[
        ("ListenAddr", TEXT),
        ("AdvertiseAddr", TEXT),
        ("DataPathAddr", TEXT),
        ("DataPathPort", U32),
        ("ForceNewCluster", Bool),
        ("Spec", Object(&CLUSTER)),
        ("AutoLockManagers", Bool),
        ("Availability", AVAILABILITY),
        ("DefaultAddrPool", TEXTS),
        ("SubnetSize", U32),
    ],
);

pub(crate) static JOIN: Struct = Struct(
    "swarm",
    "JoinRequest",
    &[
        ("ListenAddr", TEXT),
        ("AdvertiseAddr", TEXT),
        ("DataPathAddr", TEXT),
        ("RemoteAddrs", TEXTS),
        ("JoinToken", TEXT),
        ("Availability", AVAILABILITY),
    ],
);

pub(crate) static UNLOCK: Struct = Struct("swarm", "UnlockRequest", &[("UnlockKey", TEXT)]);

pub(crate) static NETWORK: Struct = Struct(
    "network",
    "CreateRequest",
    &[
        ("Name", TEXT),
        ("CheckDuplicate", Bool),
        ("Driver", TEXT),
        ("Scope", TEXT),
        ("EnableIPv4", Bool),
        ("EnableIPv6", Bool),
        (
            "IPAM",
            Object(&Struct(
                "network",
                "IPAM",
                &[
                    ("Driver", TEXT),
                    ("Options", Map),
                    (
                        "Config",
                        List(
                            "[]network.IPAMConfig",
                            &Object(&Struct(
                                "network",
                                "IPAMConfig",
                                &[
                                    ("Subnet", TEXT),
                                    ("IPRange", TEXT),
                                    ("Gateway", TEXT),
                                    ("AuxiliaryAddresses", Map),
                                ],
                            )),
                        ),
                    ),
                ],
            )),
        ),
        ("Internal", Bool),
        ("Attachable", Bool),
        ("Ingress", Bool),
        ("ConfigOnly", Bool),
        (
            "ConfigFrom",
            Object(&Struct("network", "ConfigReference", &[("Network", TEXT)])),
        ),
        ("Options", Map),
        ("Labels", Map),
    ],
);

pub(crate) static CONNECT: Struct = Struct(
    "network",
    "ConnectOptions",
    &[
        ("Container", TEXT),
        ("EndpointConfig", Object(&ENDPOINT_SETTINGS)),
    ],
);

static ENDPOINT_SETTINGS: Struct = Struct(
    "network",
    "EndpointSettings",
    &[
        (
            "IPAMConfig",
            Object(&Struct(
                "network",
                "EndpointIPAMConfig",
                &[
                    ("IPv4Address", TEXT),
                    ("IPv6Address", TEXT),
                    ("LinkLocalIPs", TEXTS),
                ],
            )),
        ),
        ("Links", TEXTS),
        ("Aliases", TEXTS),
        ("MacAddress", TEXT),
        ("DriverOpts", Map),
        ("GwPriority", INT),
    ],
);

pub(crate) static DISCONNECT: Struct = Struct(
    "network",
    "DisconnectOptions",
    &[("Container", TEXT), ("Force", Bool)],
);
