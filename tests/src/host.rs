//! A host of the bed, and the docker CLI at its front door.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::command::{Answer, command, words};
use crate::{bed, eventually};

/// Which docker CLI speaks. Users have both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cli {
    /// The one that `WEFT_CLI` names, `20.10` or `28`; without it the first on the path.
    Default,
    /// Debian's 20.10.
    Old,
    /// A newer one beside it, where the machine has it.
    New,
}

impl Cli {
    /// Each that this machine has.
    pub fn here() -> impl Iterator<Item = Self> {
        [Cli::Old, Cli::New]
            .into_iter()
            .filter(|cli| cli.program().is_some())
    }

    /// The program, if the machine has it.
    pub fn program(self) -> Option<&'static str> {
        let path = match self {
            Cli::Default => {
                return match std::env::var("WEFT_CLI").as_deref() {
                    Ok("20.10") => Cli::Old.program(),
                    Ok("28") => Cli::New.program(),
                    _ => Some("docker"),
                };
            }
            Cli::Old => "/usr/bin/docker",
            Cli::New => "/usr/local/bin/docker",
        };
        std::path::Path::new(path).exists().then_some(path)
    }
}

/// What makes a task of `weft/whoami` healthy: its program listens. Without it a task is in the rings as soon as it runs, and whoever asks
/// before it listens is refused, by Docker's own swarm mode too. Written before the image.
pub const LISTENS: &str =
    "--health-cmd 'wget -q -O /dev/null http://127.0.0.1/' --health-interval 1s";

/// How long a change may be refused because somebody else wrote the object meanwhile.
const PERSISTENCE: Duration = Duration::from_secs(60);

/// Host number n of the bed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host(pub u8);

impl Host {
    /// `n1`, `n2`, …
    pub fn name(self) -> String {
        format!("n{}", self.0)
    }

    /// Its IPv4 address.
    pub fn v4(self) -> String {
        format!("192.0.2.{}", 10 + self.0)
    }

    /// Its IPv6 address.
    pub fn v6(self) -> String {
        format!("2001:db8::{}", 10 + self.0)
    }

    /// Both addresses as they stand in a URL, each with the address by which the client host is seen in that family.
    pub fn faces(self) -> [(String, &'static str); 2] {
        [
            (self.v4(), crate::client::V4),
            (format!("[{}]", self.v6()), crate::client::V6),
        ]
    }

    /// Folder of its sockets and logs.
    pub fn dir(self) -> PathBuf {
        bed::folder().join(self.name())
    }

    /// The front door; the engine's own when stories are told to Docker.
    pub fn front_door(self) -> PathBuf {
        if bed::against_docker() {
            return self.engine_socket();
        }
        self.dir().join("docker.sock")
    }

    /// The engine below it.
    pub fn engine_socket(self) -> PathBuf {
        self.dir().join("engine.sock")
    }

    /// The docker CLI at the front door; arguments as [`words`] reads them.
    ///
    /// # Errors
    /// When the CLI cannot be started.
    pub fn docker(self, line: &str) -> Result<Answer> {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.docker_words(Cli::Default, &words, b"")
    }

    /// What the docker CLI says to a line that it should be content with.
    ///
    /// # Errors
    /// When its status is not 0; the message holds its words.
    pub fn say(self, line: &str) -> Result<String> {
        self.docker(line)?.ok()
    }

    /// A line that shows progress until all is as wished, watched to its end as a user would.
    ///
    /// # Errors
    /// When it fails, or ends without the word that the service has converged.
    pub fn watch(self, line: &str) -> Result<String> {
        let shown = self.say(line)?;
        ensure!(
            shown.contains("verify: Service") && shown.contains("converged"),
            "`docker {line}` ended without the service converging: {shown}"
        );
        Ok(shown)
    }

    /// The docker CLI of choice at the front door, arguments as they are, with something to read. A change that comes too late, for nodes and
    /// services are written by the managers too, is typed again, as a user would.
    ///
    /// # Errors
    /// When the CLI is not on this machine or cannot be started.
    pub fn docker_words(self, cli: Cli, words: &[&str], input: &[u8]) -> Result<Answer> {
        let program = cli
            .program()
            .with_context(|| format!("this machine has no CLI of the kind {cli:?}"))?;
        let env = [
            (
                "DOCKER_HOST",
                format!("unix://{}", self.front_door().display()),
            ),
            ("DOCKER_BUILDKIT", "0".to_owned()),
        ];
        let words = [&["120", program][..], words].concat();
        let begun = Instant::now();
        loop {
            // A CLI that waits for ever is a fault to report, not to wait for.
            let answer = command("timeout", &words, &env, input)?;
            if !answer.came_too_late() || begun.elapsed() > PERSISTENCE {
                return Ok(answer);
            }
        }
    }

    /// The docker CLI at the front door, for what goes on until it is told to end: after so many seconds, by status 124.
    ///
    /// # Errors
    /// When the CLI cannot be started.
    pub fn docker_for(self, seconds: u8, line: &str) -> Result<Answer> {
        let door = format!("unix://{}", self.front_door().display());
        let line = words(&format!("{seconds} docker {line}"));
        command("timeout", line, &[("DOCKER_HOST", door)], b"")
    }

    /// Waits until this manager lists another host as `Ready` or `Down`.
    ///
    /// # Errors
    /// When it does not within a minute; the message shows its list.
    pub fn sees(self, other: Host, state: &str) -> Result<()> {
        let line = format!("{}/{state}", other.name());
        let what = format!("{} to list {line}", self.name());
        eventually(Duration::from_secs(60), &what, || {
            let list = self.say("node ls --format {{.Hostname}}/{{.Status}}")?;
            ensure!(list.lines().any(|one| one == line), "{list}");
            Ok(())
        })
    }

    /// Runs a command on the host itself.
    ///
    /// # Errors
    /// When the host does not run.
    pub fn run(self, words: &[&str]) -> Result<Answer> {
        let name = self.name();
        let shell = ["-k", "5", "300", bed::xtask()?, "testbed", "shell", &name];
        command("timeout", shell.iter().chain(words), &[], b"")
    }

    /// Asks the host's agent by its own program: `weft status` and its like.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn weft(self, words: &[&str]) -> Result<Answer> {
        let state = self.dir().join("state").display().to_string();
        let words = [words, &["--state-dir", &state]].concat();
        command(&bed::agent(), words, &[], b"")
    }

    /// A testbed verb on this host: `cut`, `heal`, `kill`, `start`, `stop-engine`, `start-engine`.
    ///
    /// # Errors
    /// When the verb fails.
    pub fn verb(self, verb: &str) -> Result<()> {
        // Docker's agent is its engine.
        let verb = match verb {
            "kill" if bed::against_docker() => "stop-engine",
            "start" if bed::against_docker() => "start-engine",
            verb => verb,
        };
        command(bed::xtask()?, ["testbed", verb, &self.name()], &[], b"")?
            .ok()
            .map(drop)
    }

    /// Creates a service and waits until it has converged. `line` is what follows `docker service create --name NAME`.
    ///
    /// # Errors
    /// When it is refused or does not converge.
    pub fn create(self, name: &str, line: &str) -> Result<()> {
        self.say(&format!("service create --detach --name {name} {line}"))?;
        self.converged(name)
    }

    /// Waits until as many tasks of the service run as it wishes, none of an older version among them.
    ///
    /// # Errors
    /// When that does not happen within 120 s; the message shows its tasks.
    pub fn converged(self, name: &str) -> Result<()> {
        let waited = eventually(
            Duration::from_secs(120),
            &format!("{name} to converge"),
            || {
                let list = self.say("service ls --format {{.Name}}={{.Replicas}}")?;
                let counts = list
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{name}=")))
                    .context("it is not listed")?;
                let counts = counts.split_whitespace().next().unwrap_or_default();
                let (_, wished) = counts
                    .split_once('/')
                    .with_context(|| format!("replicas are `{counts}`"))?;
                // Not the first number: as in Swarm it counts tasks of a lost node, which nobody saw end.
                let states = self.say(&format!("service ps --filter desired-state=running --format {{{{.CurrentState}}}} {name}"))?;
                let running = states
                    .lines()
                    .filter(|state| state.starts_with("Running"))
                    .count();
                ensure!(
                    running.to_string() == wished && running == states.lines().count(),
                    "of {wished} wished the states are: {states}"
                );
                let update = self.say(&format!("service inspect --format {{{{if.UpdateStatus}}}}{{{{.UpdateStatus.State}}}}{{{{end}}}} {name}"))?;
                ensure!(
                    !matches!(update.as_str(), "updating" | "rollback_started"),
                    "its update is {update}"
                );
                Ok(())
            },
        );
        waited.with_context(|| {
            self.docker(&format!("service ps --no-trunc {name}"))
                .map_or_else(|error| error.to_string(), |ps| ps.to_string())
        })
    }

    /// Tasks of a service that are meant to run, each as `(name, node)`.
    ///
    /// # Errors
    /// When `service ps` fails.
    pub fn tasks(self, service: &str) -> Result<Vec<(String, String)>> {
        let list = self.say(&format!("service ps --filter desired-state=running --format {{{{.Name}}}}={{{{.Node}}}} {service}"))?;
        Ok(list
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(task, node)| (task.to_owned(), node.to_owned()))
            .collect())
    }

    /// Process id of the host's agent: the same as long as nothing has killed it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn agent(self) -> Result<String> {
        let agent = if bed::against_docker() {
            "dockerd"
        } else {
            "weft"
        };
        let all = self.run(&["busybox", "pidof", agent])?.ok()?;
        // A child that is about to become another program bears our name for an instant.
        let pids = all.split(' ').filter_map(|pid| pid.parse::<u32>().ok());
        let first = pids
            .min()
            .with_context(|| format!("processes are `{all}`"))?;
        Ok(first.to_string())
    }

    /// Ids of this host's own containers of a service, newest first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub fn containers(self, service: &str) -> Result<Vec<String>> {
        let list = self.say(&format!(
            "ps -q --filter label=com.docker.swarm.service.name={service}"
        ))?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    /// Runs a command in the newest container of a service on this host.
    ///
    /// # Errors
    /// When there is none, or the CLI cannot be started.
    pub fn exec(self, service: &str, words: &[&str]) -> Result<Answer> {
        let containers = self.containers(service)?;
        let Some(container) = containers.first() else {
            bail!("{} runs no task of {service}", self.name())
        };
        self.docker_words(
            Cli::Default,
            &[&["exec", container.as_str()][..], words].concat(),
            b"",
        )
    }
}
