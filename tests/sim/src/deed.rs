//! What users do, and what befalls hosts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weft_control::store::View;
use weft_proto::ControlRequest;
use weft_types::{
    container::ContainerSpec,
    network::NetworkSpec,
    node::{Availability, Node, NodeSpec, Role},
    service::{
        Empty, NetworkAttachmentConfig, PortConfig, Replicated, ReplicatedJob, ServiceMode,
        ServiceSpec, UpdateConfig,
    },
    task::{Placement, RestartPolicy},
};

use crate::{Millis, chance::Chance, seat};

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Deed {
    /// A user wishes something, through this host's front door.
    Ask {
        /// The host.
        through: u32,
        /// The wish.
        ask: Ask,
    },
    /// Of a thousand letters so many are lost, and they take up to so long.
    Weather {
        /// Of a thousand.
        loss: u64,
        /// Milliseconds.
        delay: Millis,
    },
    /// Hosts on the one side (bits) and on the other do not hear each other.
    Partition {
        /// The one side.
        side: u32,
        /// Only nothing gets out of that side.
        one_way: bool,
    },
    /// All hear each other again.
    Mend,
    /// The process of weft dies and comes back.
    Kill {
        /// Where.
        host: u32,
        /// After so long.
        back: Millis,
    },
    /// The machine dies, with its containers and its kernel's tables, and comes back.
    Reboot {
        /// Where.
        host: u32,
        /// After so long.
        back: Millis,
    },
    /// The machine's clock is set.
    Clock {
        /// Where.
        host: u32,
        /// So many milliseconds off the true time.
        off: i64,
    },
    /// The machine's disk takes up to so long for a write.
    Disk {
        /// Where.
        host: u32,
        /// Milliseconds.
        slowness: Millis,
    },
    /// The machine's disk is full: no write is kept.
    Full {
        /// Where.
        host: u32,
        /// For so long.
        lasts: Millis,
    },
    /// A container dies by itself.
    Crash {
        /// Which of those that run.
        nth: u64,
    },
    /// The kernel refuses what it is asked for.
    Refuse {
        /// Where.
        host: u32,
        /// For so long.
        lasts: Millis,
    },
}

/// What a user wishes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// A service.
    Create {
        /// Which of a few names.
        service: u8,
        /// What kind.
        shape: Shape,
        /// How many.
        replicas: u64,
        /// With a published port.
        publish: bool,
        /// On the network "small".
        network: bool,
        /// Not on the first host.
        avoid: bool,
    },
    /// Another number of replicas.
    Scale {
        /// Which.
        service: u8,
        /// How many.
        replicas: u64,
    },
    /// Another image, and how it is rolled out.
    Image {
        /// Which.
        service: u8,
        /// Its name says how it fares.
        image: String,
        /// The order.
        start_first: bool,
        /// At a time.
        parallelism: u64,
        /// What a failure leads to.
        action: String,
    },
    /// Back to the spec before.
    Rollback {
        /// Which.
        service: u8,
    },
    /// Replaces every task.
    Force {
        /// Which.
        service: u8,
    },
    /// No more of it.
    Remove {
        /// Which.
        service: u8,
    },
    /// A node may take tasks, keep them, or must give them away.
    Availability {
        /// Which.
        host: u32,
        /// Which of the three.
        availability: Availability,
    },
    /// A node is to be a manager, or no longer.
    Role {
        /// Which.
        host: u32,
        /// The role.
        role: Role,
    },
    /// A node is forgotten.
    RemoveNode {
        /// Which.
        host: u32,
        /// Although it is not down.
        force: bool,
    },
    /// Spreads tasks evenly again.
    Rebalance,
    /// The network "small".
    Network,
}

/// A kind of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// So many.
    Replicated,
    /// One on each node.
    Global,
    /// So many runs.
    Job,
    /// One run on each node.
    GlobalJob,
}

/// The newest node of a host.
pub(crate) fn node_on(view: &View, host: u32) -> Option<&Arc<Node>> {
    let nodes = view
        .nodes()
        .filter(|node| seat::host_of(node.id) == Some(host));
    nodes.max_by_key(|node| node.id)
}

fn name(service: u8) -> String {
    format!("s{service}")
}

impl Deed {
    /// Any one.
    pub(crate) fn any(chance: &mut Chance, hosts: u32) -> Self {
        let host = |chance: &mut Chance| chance.within(1, u64::from(hosts)) as u32;
        match chance.below(44) {
            0..=21 => Self::Ask {
                through: host(chance),
                ask: Ask::any(chance, hosts),
            },
            22..=23 => Self::Weather {
                loss: chance.pick(&[0, 10, 50, 200]),
                delay: chance.pick(&[0, 10, 50, 300, 1_000]),
            },
            24..=26 => Self::Partition {
                side: chance.within(1, (1 << hosts) - 2) as u32,
                one_way: chance.per_mille(300),
            },
            27..=28 => Self::Mend,
            29..=31 => Self::Kill {
                host: host(chance),
                back: chance.within(50, 8_000),
            },
            32 => Self::Reboot {
                host: host(chance),
                back: chance.within(200, 8_000),
            },
            33 => Self::Clock {
                host: host(chance),
                off: chance.within(0, 60_000) as i64 - 30_000,
            },
            34..=35 => Self::Disk {
                host: host(chance),
                slowness: chance.pick(&[1, 20, 200, 1_500]),
            },
            36..=38 => Self::Crash {
                nth: chance.below(16),
            },
            39..=40 => Self::Full {
                host: host(chance),
                lasts: chance.within(500, 8_000),
            },
            41 => Self::Disk {
                host: host(chance),
                slowness: 4_000,
            },
            42 => Self::Ask {
                through: host(chance),
                ask: Ask::RemoveNode {
                    host: host(chance),
                    force: chance.per_mille(600),
                },
            },
            _ => Self::Refuse {
                host: host(chance),
                lasts: chance.within(200, 5_000),
            },
        }
    }
}

impl Ask {
    fn any(chance: &mut Chance, hosts: u32) -> Self {
        let service = chance.below(4) as u8;
        match chance.below(23) {
            0..=6 => Self::Create {
                service,
                shape: chance.pick(&[
                    Shape::Replicated,
                    Shape::Replicated,
                    Shape::Replicated,
                    Shape::Global,
                    Shape::Job,
                    Shape::GlobalJob,
                ]),
                replicas: chance.within(0, 6),
                publish: chance.per_mille(600),
                network: chance.per_mille(400),
                avoid: chance.per_mille(150),
            },
            7..=9 => Self::Scale {
                service,
                replicas: chance.within(0, 8),
            },
            10..=13 => Self::Image {
                service,
                image: chance
                    .pick(&["a", "b", "c", "unhealthy", "missing", "crash"])
                    .to_owned(),
                start_first: chance.per_mille(500),
                parallelism: chance.within(0, 3),
                action: chance.pick(&["pause", "continue", "rollback"]).to_owned(),
            },
            14 => Self::Rollback { service },
            15 => Self::Force { service },
            16 => Self::Remove { service },
            17..=18 => Self::Availability {
                host: chance.within(1, u64::from(hosts)) as u32,
                availability: chance.pick(&[
                    Availability::Active,
                    Availability::Pause,
                    Availability::Drain,
                ]),
            },
            19..=21 => Self::Role {
                host: chance.within(1, u64::from(hosts)) as u32,
                role: chance.pick(&[Role::Manager, Role::Manager, Role::Worker]),
            },
            _ => Self::Rebalance,
        }
    }

    /// The request that says so, by what the user can see; `None` when it makes no sense now.
    pub(crate) fn request(&self, view: &View) -> Option<ControlRequest> {
        match self {
            Self::Create {
                service,
                shape,
                replicas,
                publish,
                network,
                avoid,
            } => {
                let mut spec = ServiceSpec {
                    name: name(*service),
                    mode: mode(*shape, *replicas),
                    ..ServiceSpec::default()
                };
                let is_job = matches!(shape, Shape::Job | Shape::GlobalJob);
                spec.task_template.container_spec = Some(ContainerSpec {
                    image: if is_job { "job" } else { "good" }.to_owned(),
                    ..ContainerSpec::default()
                });
                spec.task_template.restart_policy = Some(RestartPolicy {
                    condition: if is_job { "on-failure" } else { "any" }.to_owned(),
                    delay: Some(1_000_000_000),
                    ..RestartPolicy::default()
                });
                if *avoid {
                    spec.task_template.placement = Some(Placement {
                        constraints: Some(vec!["node.hostname!=n1".to_owned()]),
                        ..Placement::default()
                    });
                }
                if *publish && !is_job {
                    spec.endpoint_spec.get_or_insert_default().ports = Some(vec![PortConfig {
                        target_port: 80,
                        ..PortConfig::default()
                    }]);
                }
                if *network {
                    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
                        target: "small".to_owned(),
                        ..NetworkAttachmentConfig::default()
                    }]);
                }
                Some(ControlRequest::CreateService {
                    spec: Box::new(spec),
                    registry_auth: String::new(),
                })
            }
            Self::Scale { service, replicas } => change(view, *service, false, |spec| {
                let replicated = spec.mode.replicated.as_mut()?;
                replicated.replicas = Some(*replicas);
                Some(())
            }),
            Self::Image {
                service,
                image,
                start_first,
                parallelism,
                action,
            } => change(view, *service, false, |spec| {
                if spec.mode.replicated_job.is_some() || spec.mode.global_job.is_some() {
                    return None;
                }
                image.clone_into(&mut spec.task_template.container_spec.as_mut()?.image);
                spec.update_config = Some(UpdateConfig {
                    parallelism: *parallelism,
                    order: if *start_first {
                        "start-first"
                    } else {
                        "stop-first"
                    }
                    .to_owned(),
                    failure_action: action.clone(),
                    monitor: Some(1_000_000_000),
                    ..UpdateConfig::default()
                });
                Some(())
            }),
            Self::Rollback { service } => change(view, *service, true, |_| Some(())),
            Self::Force { service } => change(view, *service, false, |spec| {
                spec.task_template.force_update += 1;
                Some(())
            }),
            Self::Remove { service } => Some(ControlRequest::RemoveService(name(*service))),
            Self::Availability { host, availability } => {
                respec(view, *host, |spec| spec.availability = *availability)
            }
            Self::Role { host, role } => respec(view, *host, |spec| spec.role = *role),
            Self::RemoveNode { host, force } => Some(ControlRequest::RemoveNode {
                node: node_on(view, *host)?.id.to_string(),
                force: *force,
            }),
            Self::Rebalance => Some(ControlRequest::Rebalance {
                budget: 3,
                apply: true,
            }),
            Self::Network => Some(ControlRequest::CreateNetwork(Box::new(NetworkSpec {
                name: "small".to_owned(),
                ..NetworkSpec::default()
            }))),
        }
    }
}

fn mode(shape: Shape, replicas: u64) -> ServiceMode {
    let mut mode = ServiceMode::default();
    match shape {
        Shape::Replicated => {
            mode.replicated = Some(Replicated {
                replicas: Some(replicas),
            });
        }
        Shape::Global => mode.global = Some(Empty {}),
        Shape::Job => {
            mode.replicated_job = Some(ReplicatedJob {
                max_concurrent: Some(2),
                total_completions: Some(replicas),
            });
        }
        Shape::GlobalJob => mode.global_job = Some(Empty {}),
    }
    mode
}

/// An update of the spec of a host's node.
fn respec(view: &View, host: u32, edit: impl FnOnce(&mut NodeSpec)) -> Option<ControlRequest> {
    let known = node_on(view, host)?;
    let mut spec = known.spec.clone();
    edit(&mut spec);
    Some(ControlRequest::UpdateNode {
        node: known.id.to_string(),
        version: known.meta.version.index,
        spec,
    })
}

/// An update of a service's spec.
pub(crate) fn change(
    view: &View,
    service: u8,
    rollback: bool,
    edit: impl FnOnce(&mut ServiceSpec) -> Option<()>,
) -> Option<ControlRequest> {
    let known = view.service_named(&name(service))?;
    let mut spec = known.spec.clone();
    edit(&mut spec)?;
    Some(ControlRequest::UpdateService {
        service: known.id.to_string(),
        version: known.meta.version.index,
        spec: Box::new(spec),
        registry_auth: None,
        auth_from_previous: false,
        rollback,
    })
}
