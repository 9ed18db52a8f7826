//! Managers on machines of their own: a network namespace and threads for each, and a switch
//! between them. Needs root.

use std::{
    fs::File,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, Barrier,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};
use weft_control::runtime::Manager;
use weft_proto::{ControlApi, ControlError, ControlReply, ControlRequest};
use weft_types::secret::{Base64, ConfigSpec};

use super::cluster::{Host, LIMIT, cluster_of};

/// Threads of a machine.
const THREADS: usize = 2;

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split_whitespace()).output();
    let done = done.expect("ip can be run");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {line}: {said}");
}

/// A namespace, gone with its owner.
struct Space(String);

impl Space {
    fn new(name: String) -> Self {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the kernel's own end removes it.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

/// A machine on the switch.
pub(crate) struct Machine {
    pub(crate) host: Host,
    pub(crate) manager: Option<Arc<Manager>>,
    runtime: Option<Runtime>,
    space: Space,
    port: String,
}

impl Machine {
    /// Does `work` on the machine's own threads, in its own network.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime
            .block_on(runtime.spawn(async move {
                let limit = LIMIT * 3;
                let done = tokio::time::timeout(limit, work).await;
                done.unwrap_or_else(|_| panic!("not done in {limit:?}"))
            }))
            .expect("no panic")
    }

    pub(crate) fn manager(&self) -> Arc<Manager> {
        Arc::clone(self.manager.as_ref().expect("it manages"))
    }

    /// Asks its manager.
    pub(crate) fn ask(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        let manager = self.manager();
        self.run(async move { manager.call(request).await })
    }

    /// The names of all configs.
    pub(crate) fn configs(&self) -> Result<Vec<String>, ControlError> {
        match self.ask(ControlRequest::ListConfigs)? {
            ControlReply::Configs(configs) => {
                Ok(configs.into_iter().map(|config| config.spec.name).collect())
            }
            other => panic!("not configs: {other:?}"),
        }
    }

    /// All threads of the machine stand still for `pause`, as those of a stopped process do. Comes
    /// back when they do.
    pub(crate) fn freeze(&self, pause: Duration) {
        let runtime = self.runtime.as_ref().expect("it runs");
        let all = Arc::new(Barrier::new(THREADS + 1));
        for _ in 0..THREADS {
            let all = Arc::clone(&all);
            runtime.spawn(async move {
                all.wait();
                std::thread::sleep(pause);
            });
        }
        all.wait();
    }

    /// Dies: its threads end where they are.
    pub(crate) fn die(&mut self) {
        self.manager = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// The machines and their switch.
pub(crate) struct Lan {
    pub(crate) machines: Vec<Machine>,
    switch: Space,
}

impl Lan {
    /// That many machines, all plugged in.
    pub(crate) fn new(machines: usize) -> Self {
        static LANS: AtomicU32 = AtomicU32::new(0);
        let lan = LANS.fetch_add(1, Ordering::Relaxed);
        let name = |part: &str| format!("weftc{}-{lan}-{part}", std::process::id());
        let switch = Space::new(name("s"));
        ip(&format!("-n {} link add br0 type bridge", switch.0));
        ip(&format!("-n {} link set br0 up", switch.0));
        let machines = (1..=machines).map(|number| {
            let space = Space::new(name(&number.to_string()));
            let port = format!("p{number}");
            ip(&format!(
                "-n {} link add {port} type veth peer name eth0 netns {}",
                switch.0, space.0
            ));
            ip(&format!("-n {} link set {port} master br0 up", switch.0));
            ip(&format!("-n {} link set eth0 up", space.0));
            ip(&format!(
                "-n {} address add 192.0.2.{number}/24 dev eth0",
                space.0
            ));
            let addr = SocketAddr::from(([192, 0, 2, u8::try_from(number).expect("few")], 2377));
            let inside = Arc::new(File::open(format!("/run/netns/{}", space.0)).expect("there"));
            let runtime = Builder::new_multi_thread()
                .worker_threads(THREADS)
                .on_thread_start(move || {
                    setns(&*inside, CloneFlags::CLONE_NEWNET).expect("into the namespace");
                })
                .enable_all()
                .build()
                .expect("threads");
            Machine {
                host: Host::at(addr),
                manager: None,
                runtime: Some(runtime),
                space,
                port,
            }
        });
        Self {
            machines: machines.collect(),
            switch,
        }
    }

    /// That many managers of one cluster.
    pub(crate) fn managed(managers: usize) -> Self {
        let mut lan = Self::new(managers);
        for number in 0..managers {
            lan.manage(number);
        }
        lan
    }

    /// Makes machine `number` a manager: the first one's cluster is made, the others join it.
    pub(crate) fn manage(&mut self, number: usize) {
        let manager = if number == 0 {
            let (config, init) = self.machines[0].host.to_init();
            self.machines[0].run(async move { Manager::bootstrap(config, init).await })
        } else {
            let token = self.token();
            let at = self.machines[0].host.addr;
            let machine = &self.machines[number];
            let credentials = machine.run(machine.host.to_join(at, &token));
            let config = machine.host.config();
            machine.run(async move { Manager::join(config, credentials, vec![at]).await })
        };
        self.machines[number].manager = Some(manager.expect("a manager"));
    }

    /// The token by which managers join.
    pub(crate) fn token(&self) -> String {
        let first = self.machines[0].manager();
        self.machines[0].run(async move { cluster_of(&first).await.join_tokens.manager })
    }

    /// Pulls the plug of a machine: nothing goes in or out, and nobody is told.
    pub(crate) fn unplug(&self, number: usize) {
        let port = &self.machines[number].port;
        ip(&format!("-n {} link set {port} down", self.switch.0));
    }

    /// Plugs it in again.
    pub(crate) fn plug(&self, number: usize) {
        let port = &self.machines[number].port;
        ip(&format!("-n {} link set {port} up", self.switch.0));
    }

    /// Machine `number` hears nothing of machine `of` any more.
    pub(crate) fn deafen(&self, number: usize, of: usize) {
        let space = &self.machines[number].space.0;
        let from = self.machines[of].host.addr.ip();
        let rules = format!(
            "add table ip deaf; add chain ip deaf in {{ type filter hook input priority 0; }}; \
             add rule ip deaf in ip saddr {from} drop"
        );
        let done = Command::new("ip")
            .args(["netns", "exec", space, "nft", &rules])
            .output();
        let done = done.expect("nft can be run");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "nft {rules}: {said}");
    }

    /// Who leads, among these.
    pub(crate) fn leader(&self, among: &[usize]) -> usize {
        let deadline = std::time::Instant::now() + LIMIT;
        loop {
            for number in among {
                let manager = self.machines[*number].manager();
                if self.machines[*number].run(async move { manager.standing().await.leads }) {
                    return *number;
                }
            }
            assert!(std::time::Instant::now() < deadline, "nobody leads");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends all managers in order.
    pub(crate) fn down(self) {
        for machine in &self.machines {
            if let Some(manager) = machine.manager.clone() {
                machine.run(async move { manager.shutdown().await });
            }
        }
    }
}

/// A write like any other.
pub(crate) fn config(name: &str) -> ControlRequest {
    ControlRequest::CreateConfig(Box::new(ConfigSpec {
        name: name.to_owned(),
        data: Base64(b"text".to_vec()),
        ..ConfigSpec::default()
    }))
}
