//! A journal that is not what was written.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use weft_agent::task::Observation;
use weft_proto::codec;

use super::*;

/// What was logged on this thread.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn text(&self) -> String {
        let said = self.0.lock().expect("nobody panicked").clone();
        String::from_utf8(said).expect("text")
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn listen() -> (Said, tracing::subscriber::DefaultGuard) {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    (said, tracing::subscriber::set_default(subscriber))
}

fn file_of(world: &World, task: TaskId) -> PathBuf {
    let tasks = world.state.path().join("journal/tasks");
    tasks.join(task.as_str())
}

/// The tasks as the manager stores them, as soon as they run.
async fn run(line: &mut Line, mut tasks: Vec<Task>) -> Vec<Task> {
    for begun in 0..tasks.len() {
        line.assign(tasks[..=begun].to_vec()).await;
        let task = &mut tasks[begun];
        task.status = line.until_seen(task.id, TaskState::Running).await;
    }
    tasks
}

fn process(world: &World, task: TaskId) -> Observation {
    let container = world.engine.container_of(task);
    container.expect("it has a container").observation
}

/// Two tasks run, the agent dies, and `damage` is done to what it wrote of the first. Answers why it
/// was left out.
async fn survives(damage: impl FnOnce(Vec<u8>) -> Vec<u8>) -> String {
    let (said, _listening) = listen();
    let world = World::new();
    let tasks = {
        let mut node = world.boot();
        let mut line = node.session().await;
        let both = vec![task(1, TaskState::Running), task(2, TaskState::Running)];
        run(&mut line, both).await
    };
    let ids = [tasks[0].id, tasks[1].id];
    let before = ids.map(|id| process(&world, id));
    let file = file_of(&world, ids[0]);
    let written = fs::read(&file).expect("it was written");
    fs::write(&file, damage(written)).expect("damaged");
    world.wiring.held().sandboxes.clear();
    let mut node = world.boot();
    wait_for("the other task to be taken up", || {
        world.wiring.held().sandboxes.contains(&ids[1])
    })
    .await;
    assert_eq!(ids.map(|id| process(&world, id)), before, "with no manager");
    let mut line = node.session().await;
    line.assign(tasks).await;
    line.until_seen(ids[0], TaskState::Running).await;
    wait_for("the task to be taken up", || {
        world.wiring.held().sandboxes.contains(&ids[0])
    })
    .await;
    assert_eq!(ids.map(|id| process(&world, id)), before, "begun again");
    let said = said.text();
    let path = file.display().to_string();
    let line = said.lines().find(|line| line.contains(&path));
    line.unwrap_or_else(|| panic!("{path} is not named:\n{said}"))
        .to_owned()
}

#[tokio::test]
async fn a_torn_file_is_named_and_its_task_taken_up_when_a_manager_tells_of_it() {
    let said = survives(|written| written[..written.len() / 2].to_vec()).await;
    assert!(said.contains("not understood and left out"), "{said}");
    let said = survives(|_| Vec::new()).await;
    assert!(said.contains("not understood and left out"), "{said}");
}

#[tokio::test]
async fn a_flipped_bit_is_found() {
    let flip = |mut written: Vec<u8>| {
        let image = written.windows(7).position(|word| word == b"busybox");
        written[image.expect("its image")] ^= 1;
        written
    };
    let said = survives(flip).await;
    assert!(said.contains("does not match its sum"), "{said}");
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_left_out() {
    let newer = serde_json::json!({
        "task": { "ID": TaskId::numbered(1) },
        "status": { "State": "levitating" },
    });
    let said = survives(|_| codec::encode(&newer).expect("written")).await;
    assert!(said.contains("levitating"), "{said}");
}

#[tokio::test]
async fn what_an_older_version_wrote_without_a_sum_is_read() {
    let world = World::new();
    let id = {
        let mut node = world.boot();
        let mut line = node.session().await;
        run(&mut line, vec![task(1, TaskState::Running)]).await[0].id
    };
    let file = file_of(&world, id);
    let written = fs::read(&file).expect("it was written");
    fs::write(&file, &written[..written.len() - 12]).expect("without its sum");
    world.wiring.held().sandboxes.clear();
    let _node = world.boot();
    wait_for("the task to be taken up", || {
        world.wiring.held().sandboxes.contains(&id)
    })
    .await;
}

#[tokio::test]
async fn a_task_that_the_journal_forgot_is_stopped_when_it_is_to_stop() {
    let world = World::new();
    let mut tasks = {
        let mut node = world.boot();
        let mut line = node.session().await;
        run(&mut line, vec![task(1, TaskState::Running)]).await
    };
    let id = tasks[0].id;
    fs::remove_file(file_of(&world, id)).expect("forgotten");
    let mut node = world.boot();
    let mut line = node.session().await;
    tasks[0].desired_state = TaskState::Shutdown;
    tasks[0].withdrawn = true;
    line.assign(tasks).await;
    line.until_seen(id, TaskState::Shutdown).await;
    let process = process(&world, id);
    assert!(matches!(process, Observation::Exited { .. }), "{process:?}");
}
