//! Services.

use super::{
    Bool, Bytes, DRIVER, DURATION, FILE_MODE, Float, Go, I64, INT, List, Map, Object, Struct, TEXT,
    TEXTS, Text, U32, U64,
};

pub(crate) static SERVICE: Struct = Struct(
    "swarm",
    "ServiceSpec",
    &[
        ("Name", TEXT),
        ("Labels", Map),
        ("TaskTemplate", Object(&TASK)),
        ("Mode", Object(&MODE)),
        ("UpdateConfig", Object(&UPDATE)),
        ("RollbackConfig", Object(&UPDATE)),
        ("Networks", ATTACHMENTS),
        ("EndpointSpec", Object(&ENDPOINT)),
    ],
);

static MODE: Struct = Struct(
    "swarm",
    "ServiceMode",
    &[
        (
            "Replicated",
            Object(&Struct("swarm", "ReplicatedService", &[("Replicas", U64)])),
        ),
        ("Global", Object(&Struct("swarm", "GlobalService", &[]))),
        (
            "ReplicatedJob",
            Object(&Struct(
                "swarm",
                "ReplicatedJob",
                &[("MaxConcurrent", U64), ("TotalCompletions", U64)],
            )),
        ),
        ("GlobalJob", Object(&Struct("swarm", "GlobalJob", &[]))),
    ],
);

static UPDATE: Struct = Struct(
    "swarm",
    "UpdateConfig",
    &[
        ("Parallelism", U64),
        ("Delay", DURATION),
        ("FailureAction", TEXT),
        ("Monitor", DURATION),
        ("MaxFailureRatio", Float),
        ("Order", TEXT),
    ],
);

const ATTACHMENTS: Go = List(
    "[]swarm.NetworkAttachmentConfig",
    &Object(&Struct(
        "swarm",
        "NetworkAttachmentConfig",
        &[("Target", TEXT), ("Aliases", TEXTS), ("DriverOpts", Map)],
    )),
);

static ENDPOINT: Struct = Struct(
    "swarm",
    "EndpointSpec",
    &[
        ("Mode", Text("swarm.ResolutionMode")),
        (
            "Ports",
            List(
                "[]swarm.PortConfig",
                &Object(&Struct(
                    "swarm",
                    "PortConfig",
                    &[
                        ("Name", TEXT),
                        ("Protocol", Text("swarm.PortConfigProtocol")),
                        ("TargetPort", U32),
                        ("PublishedPort", U32),
                        ("PublishMode", Text("swarm.PortConfigPublishMode")),
                    ],
                )),
            ),
        ),
    ],
);

static TASK: Struct = Struct(
    "swarm",
    "TaskSpec",
    &[
        ("ContainerSpec", Object(&CONTAINER)),
        (
            "NetworkAttachmentSpec",
            Object(&Struct(
                "swarm",
                "NetworkAttachmentSpec",
                &[("ContainerID", TEXT)],
            )),
        ),
        ("Resources", Object(&RESOURCES)),
        (
            "RestartPolicy",
            Object(&Struct(
                "swarm",
                "RestartPolicy",
                &[
                    ("Condition", Text("swarm.RestartPolicyCondition")),
                    ("Delay", DURATION),
                    ("MaxAttempts", U64),
                    ("Window", DURATION),
                ],
            )),
        ),
        ("Placement", Object(&PLACEMENT)),
        ("Networks", ATTACHMENTS),
        ("LogDriver", DRIVER),
        ("ForceUpdate", U64),
        ("Runtime", Text("swarm.RuntimeType")),
    ],
);

static RESOURCES: Struct = Struct(
    "swarm",
    "ResourceRequirements",
    &[
        (
            "Limits",
            Object(&Struct(
                "swarm",
                "Limit",
                &[("NanoCPUs", I64), ("MemoryBytes", I64), ("Pids", I64)],
            )),
        ),
        (
            "Reservations",
            Object(&Struct(
                "swarm",
                "Resources",
                &[
                    ("NanoCPUs", I64),
                    ("MemoryBytes", I64),
                    (
                        "GenericResources",
                        List("[]swarm.GenericResource", &GENERIC),
                    ),
                ],
            )),
        ),
    ],
);

const GENERIC: Go = Object(&Struct(
    "swarm",
    "GenericResource",
    &[
        (
            "NamedResourceSpec",
            Object(&Struct(
                "swarm",
                "NamedGenericResource",
                &[("Kind", TEXT), ("Value", TEXT)],
            )),
        ),
        (
            "DiscreteResourceSpec",
            Object(&Struct(
                "swarm",
                "DiscreteGenericResource",
                &[("Kind", TEXT), ("Value", I64)],
            )),
        ),
    ],
));

static PLACEMENT: Struct = Struct(
    "swarm",
    "Placement",
    &[
        ("Constraints", TEXTS),
        (
            "Preferences",
            List(
                "[]swarm.PlacementPreference",
                &Object(&Struct(
                    "swarm",
                    "PlacementPreference",
                    &[(
                        "Spread",
                        Object(&Struct(
                            "swarm",
                            "SpreadOver",
                            &[("SpreadDescriptor", TEXT)],
                        )),
                    )],
                )),
            ),
        ),
        ("MaxReplicas", U64),
        (
            "Platforms",
            List(
                "[]swarm.Platform",
                &Object(&Struct(
                    "swarm",
                    "Platform",
                    &[("Architecture", TEXT), ("OS", TEXT)],
                )),
            ),
        ),
    ],
);

static CONTAINER: Struct = Struct(
    "swarm",
    "ContainerSpec",
    &[
        ("Image", TEXT),
        ("Labels", Map),
        ("Command", TEXTS),
        ("Args", TEXTS),
        ("Hostname", TEXT),
        ("Env", TEXTS),
        ("Dir", TEXT),
        ("User", TEXT),
        ("Groups", TEXTS),
        ("Privileges", Object(&PRIVILEGES)),
        ("Init", Bool),
        ("StopSignal", TEXT),
        ("TTY", Bool),
        ("OpenStdin", Bool),
        ("ReadOnly", Bool),
        ("Mounts", List("[]mount.Mount", &Object(&MOUNT))),
        ("StopGracePeriod", DURATION),
        (
            "Healthcheck",
            Object(&Struct(
                "container",
                "HealthConfig",
                &[
                    ("Test", TEXTS),
                    ("Interval", DURATION),
                    ("Timeout", DURATION),
                    ("StartPeriod", DURATION),
                    ("StartInterval", DURATION),
                    ("Retries", INT),
                ],
            )),
        ),
        ("Hosts", TEXTS),
        (
            "DNSConfig",
            Object(&Struct(
                "swarm",
                "DNSConfig",
                &[
                    ("Nameservers", TEXTS),
                    ("Search", TEXTS),
                    ("Options", TEXTS),
                ],
            )),
        ),
        (
            "Secrets",
            List(
                "[]*swarm.SecretReference",
                &Object(&Struct(
                    "swarm",
                    "SecretReference",
                    &[
                        (
                            "File",
                            Object(&Struct("swarm", "SecretReferenceFileTarget", FILE)),
                        ),
                        ("SecretID", TEXT),
                        ("SecretName", TEXT),
                    ],
                )),
            ),
        ),
        (
            "Configs",
            List(
                "[]*swarm.ConfigReference",
                &Object(&Struct(
                    "swarm",
                    "ConfigReference",
                    &[
                        (
                            "File",
                            Object(&Struct("swarm", "ConfigReferenceFileTarget", FILE)),
                        ),
                        ("ConfigID", TEXT),
                        ("ConfigName", TEXT),
                    ],
                )),
            ),
        ),
        ("Isolation", Text("container.Isolation")),
        ("Sysctls", Map),
        ("CapabilityAdd", TEXTS),
        ("CapabilityDrop", TEXTS),
        (
            "Ulimits",
            List(
                "[]*container.Ulimit",
                &Object(&Struct(
                    "container",
                    "Ulimit",
                    &[("Name", TEXT), ("Hard", I64), ("Soft", I64)],
                )),
            ),
        ),
        ("OomScoreAdj", I64),
    ],
);

const FILE: &[(&str, Go)] = &[
    ("Name", TEXT),
    ("UID", TEXT),
    ("GID", TEXT),
    ("Mode", FILE_MODE),
];

static PRIVILEGES: Struct = Struct(
    "swarm",
    "Privileges",
    &[
        (
            "CredentialSpec",
            Object(&Struct(
                "swarm",
                "CredentialSpec",
                &[("Config", TEXT), ("File", TEXT), ("Registry", TEXT)],
            )),
        ),
        (
            "SELinuxContext",
            Object(&Struct(
                "swarm",
                "SELinuxContext",
                &[
                    ("Disable", Bool),
                    ("User", TEXT),
                    ("Role", TEXT),
                    ("Type", TEXT),
                    ("Level", TEXT),
                ],
            )),
        ),
        (
            "Seccomp",
            Object(&Struct(
                "swarm",
                "SeccompOpts",
                &[("Mode", Text("swarm.SeccompMode")), ("Profile", Bytes)],
            )),
        ),
        (
            "AppArmor",
            Object(&Struct(
                "swarm",
                "AppArmorOpts",
                &[("Mode", Text("swarm.AppArmorMode"))],
            )),
        ),
        ("NoNewPrivileges", Bool),
    ],
);

static MOUNT: Struct = Struct(
    "mount",
    "Mount",
    &[
        ("Type", Text("mount.Type")),
        ("Source", TEXT),
        ("Target", TEXT),
        ("ReadOnly", Bool),
        ("Consistency", Text("mount.Consistency")),
        (
            "BindOptions",
            Object(&Struct(
                "mount",
                "BindOptions",
                &[
                    ("Propagation", Text("mount.Propagation")),
                    ("NonRecursive", Bool),
                    ("CreateMountpoint", Bool),
                    ("ReadOnlyNonRecursive", Bool),
                    ("ReadOnlyForceRecursive", Bool),
                ],
            )),
        ),
        (
            "VolumeOptions",
            Object(&Struct(
                "mount",
                "VolumeOptions",
                &[
                    ("NoCopy", Bool),
                    ("Labels", Map),
                    ("Subpath", TEXT),
                    (
                        "DriverConfig",
                        Object(&Struct(
                            "mount",
                            "Driver",
                            &[("Name", TEXT), ("Options", Map)],
                        )),
                    ),
                ],
            )),
        ),
        (
            "TmpfsOptions",
            Object(&Struct(
                "mount",
                "TmpfsOptions",
                &[
                    ("SizeBytes", I64),
                    ("Mode", FILE_MODE),
                    ("Options", List("[][]string", &TEXTS)),
                ],
            )),
        ),
    ],
);
