//! Several hosts on one machine: `cargo xtask testbed …`.

mod down;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod owner;
pub(crate) mod plan;
mod process;
mod status;
pub(crate) mod swarm;
pub(crate) mod up;
mod wire;

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use self::plan::{CLIENT, Host, namespace_file};
use crate::rights;
use crate::run::run;

/// What can be done to the testbed.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Start hosts, a client and a switch as network namespaces, each host with its own engine and agent
    #[command(
        after_help = "e.g. cargo xtask testbed up 3 && cargo xtask testbed swarm\nWEFT_AGENT=target/release/weft in the environment runs that agent instead of target/debug/weft"
    )]
    Up {
        /// How many hosts
        #[arg(default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(plan::MOST_HOSTS)))]
        hosts: u8,
        /// Engines only: no agent, so nothing of weft is needed
        #[arg(long)]
        bare: bool,
        /// Run what is built already instead of building first
        #[arg(long)]
        as_built: bool,
    },
    /// Form a swarm of all hosts through the docker CLI; host 1 is the first manager
    Swarm {
        /// How many of the hosts are managers
        #[arg(long, default_value_t = 1)]
        managers: u8,
    },
    /// Show hosts, engines, agents and cables
    Status,
    /// Open a shell on a host (n1, n2, … or client), DOCKER_HOST set
    Shell {
        /// n1, n2, … or client
        host: String,
        /// A command to run in place of the shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Take a host off the switch; it keeps its carrier and notices nothing else
    Cut {
        /// n1, n2, …
        host: String,
    },
    /// Put a host back on the switch
    Heal {
        /// n1, n2, …
        host: String,
    },
    /// Kill a host's agent (-9)
    Kill {
        /// n1, n2, …
        host: String,
    },
    /// Start a host's agent again
    Start {
        /// n1, n2, …
        host: String,
    },
    /// Stop a host's engine; its containers stop with it
    StopEngine {
        /// n1, n2, …
        host: String,
    },
    /// Start a host's engine again
    StartEngine {
        /// n1, n2, …
        host: String,
    },
    /// Take everything away: no namespace, link, map, pin, mount or process stays
    Down,
}

/// Does a verb.
///
/// # Errors
/// When not root, when another clone's testbed is in use, or when the verb's own work fails.
pub(crate) fn act(verb: Verb) -> Result<()> {
    rights::require_root("testbed", rights::HOSTS)?;
    owner::take_over()?;
    match verb {
        Verb::Up {
            hosts,
            bare,
            as_built,
        } => {
            let depth = if bare {
                up::Depth::Engines
            } else {
                up::Depth::Agents
            };
            if !as_built {
                up::prepare(depth)?;
            }
            up::up(hosts, depth)
        }
        Verb::Swarm { managers } => swarm::form(managers),
        Verb::Status => status::print(),
        Verb::Shell { host, command } => shell(&host, &command),
        Verb::Cut { host } => wire::cut(&running(&host)?.station()),
        Verb::Heal { host } => wire::heal(&running(&host)?.station()),
        Verb::Kill { host } => host::kill_agent(running(&host)?),
        Verb::Start { host } => host::start_agent(running(&host)?),
        Verb::StopEngine { host } => host::stop_engine(running(&host)?),
        Verb::StartEngine { host } => host::start_engine(running(&host)?),
        Verb::Down => down::down(),
    }
}

fn running(name: &str) -> Result<Host> {
    let host = Host::parse(name)?;
    if process::init_of(host).is_none() {
        let known: Vec<String> = plan::hosts().into_iter().map(Host::name).collect();
        bail!(
            "{name} does not run; hosts up now: {}",
            if known.is_empty() {
                "none".into()
            } else {
                known.join(" ")
            }
        );
    }
    Ok(host)
}

fn shell(name: &str, command: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let enter = if name == "client" || name == CLIENT {
        run("nsenter")
            .arg(format!("--net={}", namespace_file(CLIENT).display()))
            .arg("--")
    } else {
        let host = running(name)?;
        host::on(host)?.env(
            "DOCKER_HOST",
            format!("unix://{}", host.front_door().display()),
        )
    };
    let shell = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".into());
    let words = if command.is_empty() {
        vec![shell]
    } else {
        command.to_vec()
    };
    let error = enter
        .args(words)
        .env("WEFT_HOST", name)
        .into_command()
        .exec();
    Err(error).context("cannot start a shell")
}
