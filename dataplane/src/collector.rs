//! Forgets dead flows and keeps the last sample of each drop, on a thread of its own: the flow table
//! may be large, and nobody should wait for it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use weft_abi::{Backend, Endpoint, Event, Flow, FlowKey, Load, backend, event, maps};

use crate::{
    DataplaneError,
    flows::{Pair, open_connections, pairs},
    forget::{FlowTables, forget},
    kernel::{bpf::Programs, clock, events::Events, map::Map},
};

/// How often the tables are looked through.
const ROUND: Duration = Duration::from_secs(5);

/// Last sample by program and reason.
pub(crate) type Samples = Arc<Mutex<HashMap<(u8, u8), Event>>>;

/// The thread's handle. It ends when this is dropped.
pub(crate) struct Collector {
    wake: mpsc::Sender<()>,
    pub(crate) samples: Samples,
}

struct Tables {
    flow: Map<FlowKey, Flow>,
    flow_new: Map<FlowKey, Flow>,
    backends: Map<u32, Backend>,
    local_tasks: Map<u32, Endpoint>,
    loads: Map<u32, Load>,
    events: Option<Events>,
    samples: Samples,
}

impl Collector {
    /// Begins. Not before the tables were reconciled once: a backend that is not written yet is not
    /// a backend that is gone.
    pub(crate) fn start(programs: &Programs) -> Result<Self, DataplaneError> {
        let samples = Samples::default();
        let path = |name| programs.map_path(name);
        let mut tables = Tables {
            flow: Map::open(&path(maps::FLOW.name), maps::FLOW.name)?,
            flow_new: Map::open(&path(maps::FLOW_NEW.name), maps::FLOW_NEW.name)?,
            backends: Map::open(&path(maps::BACKENDS.name), maps::BACKENDS.name)?,
            local_tasks: Map::open(&path(maps::LOCAL_TASKS.name), maps::LOCAL_TASKS.name)?,
            loads: Map::open(&path(maps::LOADS.name), maps::LOADS.name)?,
            events: Events::open(&path(maps::EVENTS.name))
                .inspect_err(|error| tracing::warn!(%error, "drops are counted, but none is shown"))
                .ok(),
            samples: samples.clone(),
        };
        let (wake, woken) = mpsc::channel();
        let run = move || {
            loop {
                match woken.recv_timeout(ROUND) {
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                }
                tables.take_samples();
                if let Err(error) = tables.collect() {
                    tracing::warn!(%error, "cannot look through the flows");
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("flows".to_owned())
            .spawn(run);
        thread.map_err(|error| DataplaneError::Refused(format!("start a thread: {error}")))?;
        Ok(Self { wake, samples })
    }

    /// Looks now: backends went.
    pub(crate) fn wake(&self) {
        // Without a thread there is nothing to wake.
        let _ = self.wake.send(());
    }
}

impl Tables {
    fn take_samples(&mut self) {
        let Some(events) = &mut self.events else {
            return;
        };
        let Ok(mut samples) = self.samples.lock() else {
            return;
        };
        while let Some(sample) = events.take() {
            if sample.kind == event::DROP {
                samples.insert((sample.program, sample.reason), sample);
            }
        }
    }

    fn collect(&self) -> Result<(), DataplaneError> {
        let usable: BTreeSet<u32> = self
            .backends
            .entries()?
            .into_iter()
            .filter(|(_, row)| row.flags & backend::DRAINING == 0)
            .map(|(id, _)| id)
            .collect();
        let here: BTreeSet<u32> = self.local_tasks.keys()?.into_iter().collect();
        let flows: Vec<Pair> = pairs(self.flow.entries()?).collect();
        self.count(&here, &flows)?;
        for pair in flows {
            let backend = pair.backend();
            let is_over = pair.is_dead(clock::monotonic())
                || !here.contains(&backend)
                || (pair.is_udp() && !usable.contains(&backend));
            if is_over {
                forget(self, &pair, |pair| self.is_over(pair))?;
            }
        }
        // Embryos die by themselves, but a datagram's would lead to a task that is gone.
        for pair in pairs(self.flow_new.entries()?)
            .filter(|pair| pair.is_udp() && !usable.contains(&pair.backend()))
        {
            // The backend may have come since.
            if !self.is_usable(pair.backend())? {
                for key in pair.keys() {
                    self.flow_new.remove(key)?;
                }
            }
        }
        Ok(())
    }

    /// Whether nothing can be expected of a flow any more, by what is there now.
    fn is_over(&self, pair: &Pair) -> Result<bool, DataplaneError> {
        let backend = pair.backend();
        Ok(pair.is_dead(clock::monotonic())
            || self.local_tasks.get(&backend)?.is_none()
            || (pair.is_udp() && !self.is_usable(backend)?))
    }

    fn is_usable(&self, backend: u32) -> Result<bool, DataplaneError> {
        let row = self.backends.get(&backend)?;
        Ok(row.is_some_and(|row| row.flags & backend::DRAINING == 0))
    }

    /// Writes how many connections the backends of this node have, of services that choose by that.
    fn count(&self, here: &BTreeSet<u32>, flows: &[Pair]) -> Result<(), DataplaneError> {
        let at = clock::monotonic().as_nanos() as u64;
        for (backend, open) in open_connections(self.loads.keys()?, here, flows) {
            self.loads.put(&backend, &Load { open, pad: 0, at })?;
        }
        Ok(())
    }
}

impl FlowTables for Tables {
    fn established(&self, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        self.flow.get(key)
    }

    fn young(&self, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        self.flow_new.get(key)
    }

    fn take(&self, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        self.flow.take(key)
    }

    fn put_back(&self, key: &FlowKey, flow: &Flow) -> Result<(), DataplaneError> {
        let put = self.flow.insert(key, flow);
        put.or_else(|_| self.flow_new.insert(key, flow))
    }
}
