//! Updates as clients follow them, and take them back.

use std::collections::BTreeSet;

use weft_types::{ServiceId, TaskId, service::Replicated};

use super::*;
use crate::world::secs;

#[test]
fn only_tasks_of_the_current_spec_are_up_to_date() {
    let mut scene = Scene::new();
    let web: ServiceId = scene.web.parse().unwrap();
    let world = &mut scene.world;
    world.until(secs(5), "one runs", |world| world.running(web).len() == 1);
    let first = world.running(web)[0].id;
    let listed = |world: &mut World, up_to_date: bool| -> BTreeSet<TaskId> {
        let list = Ask::ListTasks {
            services: vec![web],
            nodes: vec![],
            desired: vec![],
            up_to_date,
        };
        match world.ask(&list) {
            Ok(ControlReply::Tasks(tasks)) => tasks.iter().map(|task| task.id).collect(),
            other => panic!("{other:?}"),
        }
    };
    // More of the same outdates nothing.
    world.update(web, |spec| {
        spec.mode.replicated = Some(Replicated { replicas: Some(2) });
    });
    let both = listed(world, true);
    assert!(both.len() == 2 && both.contains(&first), "{both:?}");
    world.until(secs(5), "two run", |world| world.running(web).len() == 2);
    world.update(web, |spec| spec.task_template.force_update += 1);
    let now = listed(world, true);
    assert!(now.is_disjoint(&both), "{now:?} of {both:?}");
    world.until(secs(60), "both are replaced", |world| {
        let running = world.running(web);
        running.len() == 2 && running.iter().all(|task| !both.contains(&task.id))
    });
    let running: BTreeSet<TaskId> = world.running(web).iter().map(|task| task.id).collect();
    assert_eq!(listed(world, true), running);
    assert!(listed(world, false).is_superset(&both));
}

#[test]
fn a_rollback_looks_at_its_body_and_takes_nothing_of_it() {
    let mut scene = Scene::new();
    let image = |image: &str| json!({"TaskTemplate": {"ContainerSpec": {"Image": image}}});
    let second = scene.update("hosted", &image("second"), false);
    scene.world.ask(&second).unwrap();
    let bad = scene.update("hosted", &image(""), true);
    scene.refused(
        "a body that is none",
        &bad,
        ErrorCode::InvalidArgument,
        "ContainerSpec: image reference must be provided",
    );
    let mut body = image("third");
    merge(&mut body, &json!({"Labels": {"a": "b"}}));
    let back = scene.update("hosted", &body, true);
    scene.world.ask(&back).unwrap();
    let service = scene.world.view().service_named("hosted").cloned().unwrap();
    let image = |spec: &ServiceSpec| {
        let container = spec.task_template.container_spec.clone();
        container.unwrap().image
    };
    assert_eq!(image(&service.spec), "tool");
    assert!(service.spec.labels.is_empty(), "{:?}", service.spec.labels);
    let previous = service.previous_spec.as_ref().unwrap();
    assert_eq!(image(previous), "second");
}
