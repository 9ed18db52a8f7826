//! What the engine tells of containers, again and again: its stream ends when it restarts.

use std::{
    collections::HashMap,
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{models::EventMessage, query_parameters::EventsOptions};
use futures::StreamExt;
use tokio::{sync::mpsc, time::sleep};

use super::Engine;

/// Between two tries to hear an engine that does not answer.
const PAUSE: Duration = Duration::from_millis(500);
/// Changes waiting to be taken.
const WAITING: usize = 256;

/// Which events are wished for.
#[derive(Clone, Copy)]
pub(super) struct Wished {
    /// The label that a container must have; any container when `None`.
    pub(super) label: Option<&'static str>,
    /// What happened to it.
    pub(super) events: &'static [&'static str],
}

/// Follows the events until the receiver is dropped: what `read` makes of each, and `resync` whenever some may have been
/// missed, first of all.
pub(super) fn follow<T, F>(
    engine: Engine,
    wished: Wished,
    resync: T,
    read: impl Fn(Engine, EventMessage) -> F + Send + Sync + 'static,
) -> mpsc::Receiver<T>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = Option<T>> + Send,
{
    let (changes, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while !changes.is_closed() {
            follow_once(&engine, wished, &resync, &read, &changes).await;
            sleep(PAUSE).await;
        }
    });
    receiver
}

/// Follows one stream of events until it breaks.
async fn follow_once<T, F>(
    engine: &Engine,
    wished: Wished,
    resync: &T,
    read: &(impl Fn(Engine, EventMessage) -> F + Send + Sync),
    changes: &mpsc::Sender<T>,
) where
    T: Clone + Send + Sync,
    F: Future<Output = Option<T>> + Send,
{
    let Ok(docker) = engine.docker().await else {
        return;
    };
    // A stream towards an engine that is down ends only when it is read.
    if docker.ping().await.is_err() {
        return;
    }
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut filters: HashMap<String, Vec<String>> = HashMap::from([
        ("type".to_owned(), owned(&["container"])),
        ("event".to_owned(), owned(wished.events)),
    ]);
    if let Some(label) = wished.label {
        filters.insert("label".to_owned(), owned(&[label]));
    }
    // From before the look at everything on, by the clock that both have: however late the stream is opened, nothing
    // falls between the two.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    let options = EventsOptions {
        since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
        filters: Some(filters),
        ..EventsOptions::default()
    };
    let mut events = docker.events(Some(options));
    if changes.send(resync.clone()).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = changes.closed() => return,
            event = events.next() => {
                let Some(Ok(event)) = event else { return };
                if let Some(change) = read(engine.clone(), event).await
                    && changes.send(change).await.is_err()
                {
                    return;
                }
            }
        }
    }
}
