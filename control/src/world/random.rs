//! Random lives: whatever happens, invariants hold, and when faults stop all is well in the end.

use proptest::prelude::*;
use weft_proto::ControlRequest;
use weft_types::{
    NodeId, TaskState,
    node::Availability,
    service::{Empty, NetworkAttachmentConfig, PortConfig, ServiceMode, UpdateConfig},
};

use super::{World, secs};
use crate::fixture;

#[derive(Debug, Clone)]
enum Deed {
    Create {
        name: u8,
        replicas: u64,
        global: bool,
        publish: bool,
        on_network: bool,
    },
    Scale {
        name: u8,
        replicas: u64,
    },
    Image {
        name: u8,
        image: &'static str,
        start_first: bool,
        action: &'static str,
    },
    Remove {
        name: u8,
    },
    Crash {
        nth: usize,
    },
    Silence {
        node: u32,
    },
    Revive {
        node: u32,
    },
    Availability {
        node: u32,
        availability: Availability,
    },
    Wait {
        ticks: u8,
    },
    Depose,
    Rebalance,
    Weather {
        lag: u64,
        loss: u64,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let name = 0u8..4;
    let node = 1u32..4;
    prop_oneof![
        3 => (name.clone(), 0u64..6, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(name, replicas, global, publish, on_network)| Deed::Create { name, replicas, global, publish, on_network }),
        2 => (name.clone(), 0u64..8).prop_map(|(name, replicas)| Deed::Scale { name, replicas }),
        2 => (name.clone(), prop_oneof![Just("a"), Just("b"), Just("unhealthy"), Just("missing")],
            any::<bool>(), prop_oneof![Just("pause"), Just("continue"), Just("rollback")]).prop_map(
            |(name, image, start_first, action)| Deed::Image { name, image, start_first, action }),
        1 => name.prop_map(|name| Deed::Remove { name }),
        2 => (0usize..32).prop_map(|nth| Deed::Crash { nth }),
        1 => node.clone().prop_map(|node| Deed::Silence { node }),
        2 => node.clone().prop_map(|node| Deed::Revive { node }),
        2 => (node, prop_oneof![Just(Availability::Active), Just(Availability::Pause), Just(Availability::Drain)])
            .prop_map(|(node, availability)| Deed::Availability { node, availability }),
        6 => (1u8..60).prop_map(|ticks| Deed::Wait { ticks }),
        1 => Just(Deed::Depose),
        1 => Just(Deed::Rebalance),
        1 => (1u64..6, 0u64..4).prop_map(|(lag, loss)| Deed::Weather { lag, loss }),
    ]
}

fn name(number: u8) -> String {
    format!("s{number}")
}

fn node(number: u32) -> NodeId {
    NodeId::numbered(u128::from(number))
}

fn perform(world: &mut World, deed: &Deed) {
    match deed {
        Deed::Create {
            name: number,
            replicas,
            global,
            publish,
            on_network,
        } => {
            let mut spec = fixture::service(0, &name(*number), *replicas).spec;
            if *global {
                spec.mode = ServiceMode {
                    global: Some(Empty {}),
                    ..ServiceMode::default()
                };
            }
            if *publish {
                let endpoint = spec.endpoint_spec.get_or_insert_default();
                endpoint.ports = Some(vec![PortConfig {
                    target_port: 80,
                    ..PortConfig::default()
                }]);
            }
            if *on_network {
                spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
                    target: "small".into(),
                    ..NetworkAttachmentConfig::default()
                }]);
            }
            // Taken names are refused; that is fine.
            let _ = world.ask(&ControlRequest::CreateService {
                spec: Box::new(spec),
                registry_auth: String::new(),
            });
        }
        Deed::Scale {
            name: number,
            replicas,
        } => {
            let service = world.view().service_named(&name(*number)).cloned();
            if let Some(service) = service.filter(|service| service.replicas().is_some()) {
                let mode = fixture::service(0, "", *replicas).spec.mode;
                world.update(service.id, |spec| spec.mode = mode);
            }
        }
        Deed::Image {
            name: number,
            image,
            start_first,
            action,
        } => {
            let service = world.view().service_named(&name(*number)).cloned();
            if let Some(service) = service {
                world.update(service.id, |spec| {
                    if let Some(container) = &mut spec.task_template.container_spec {
                        (*image).clone_into(&mut container.image);
                    }
                    spec.update_config = Some(UpdateConfig {
                        parallelism: 1,
                        order: if *start_first {
                            "start-first"
                        } else {
                            "stop-first"
                        }
                        .into(),
                        failure_action: (*action).into(),
                        monitor: Some(1_000_000_000),
                        ..UpdateConfig::default()
                    });
                });
            }
        }
        Deed::Remove { name: number } => {
            let _ = world.ask(&ControlRequest::RemoveService(name(*number)));
        }
        Deed::Crash { nth } => {
            let view = world.view();
            let mut running = view
                .tasks()
                .filter(|task| task.status.state == TaskState::Running);
            if let Some(task) = running.nth(*nth) {
                world.crash(task.id);
            }
        }
        Deed::Silence { node: number } => world.silence(node(*number)),
        Deed::Revive { node: number } => world.revive(node(*number)),
        Deed::Availability {
            node: number,
            availability,
        } => {
            world.availability(node(*number), *availability);
        }
        Deed::Wait { ticks } => (0..*ticks).for_each(|_| world.tick()),
        Deed::Depose => world.depose(),
        Deed::Rebalance => {
            let request = ControlRequest::Rebalance {
                budget: 3,
                apply: true,
            };
            world.ask(&request).unwrap();
        }
        Deed::Weather { lag, loss } => {
            world.lag = *lag;
            world.loss = if *loss == 1 { 2 } else { *loss };
        }
    }
}

fn is_well(world: &World) -> bool {
    let view = world.view();
    view.services().all(|service| {
        let wished = match service.replicas() {
            Some(replicas) => usize::try_from(replicas).unwrap(),
            None => view.nodes().count(),
        };
        world.running(service.id).len() == wished
    })
}

/// So many lives: `PROPTEST_CASES` if it is set (`xtask sim --seeds`), else a few.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn when_faults_stop_every_service_has_its_tasks(
        seed in 0u64..1000,
        deeds in proptest::collection::vec(deed(), 1..40),
    ) {
        let mut world = World::new(3, seed);
        world.create_network(weft_types::network::NetworkSpec {
            name: "small".into(),
            ..Default::default()
        });
        for deed in &deeds {
            perform(&mut world, deed);
        }
        (world.lag, world.loss) = (1, 0);
        for number in 1..=3 {
            world.revive(node(number));
            world.availability(node(number), Availability::Active);
        }
        // A good image heals every service.
        let services: Vec<_> = world.view().services().map(|service| service.id).collect();
        for id in services {
            world.update(id, |spec| {
                if let Some(container) = &mut spec.task_template.container_spec {
                    container.image = "good".into();
                }
            });
        }
        world.until(secs(300), "all is well", is_well);
        world.until(secs(60), "updates are done", |world| {
            world.view().services().all(|service| service.update_status.as_ref()
                .is_none_or(|status| status.completed_at.is_some()))
        });
        // Nothing is left over: no address is held by what does not live.
        let services: Vec<_> = world.view().services().map(|s| s.id.to_string()).collect();
        for id in services {
            world.ask(&ControlRequest::RemoveService(id)).unwrap();
        }
        world.until(secs(60), "no task is left", |world| world.view().task_count() == 0);
        let view = world.view();
        for network in view.networks() {
            prop_assert_eq!(view.ledger().held(network.id).count(), 0);
        }
    }
}
