//! Telling a golden script on the bed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::names::{self, Names};
use super::normal::{anywhere, normal};
use super::script::{Block, Flags, Script, Step};
use crate::command::{Answer, command};
use crate::{Cli, Host, bed, eventually};

/// How long a step that waits is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a change is refused of an object that was written meanwhile.
const TOO_LATE: &str = "update out of sequence";

/// Tells `tests/golden/NAME.txt` on the bed's hosts. With `WEFT_BLESS` in the environment what is seen is written into the file instead.
///
/// # Errors
/// Names every step that said something else, with both texts.
pub fn tell(name: &str, hosts: &[Host]) -> Result<()> {
    let file = bed::root().join("tests/golden").join(format!("{name}.txt"));
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read the script {}", file.display()))?;
    let mut script =
        Script::parse(&text).with_context(|| format!("{} is no script", file.display()))?;
    let bless = std::env::var_os("WEFT_BLESS").is_some();
    let mut told = Told {
        hosts,
        names: Names::default(),
        bless,
    };
    told.names.ask(hosts);
    let mut faults = Vec::new();
    for block in &mut script.blocks {
        let seen = told
            .step(block)
            .with_context(|| format!("{name}: {:?}", block.step))?;
        for Seen {
            old,
            status,
            output,
        } in seen
        {
            if bless && old {
                block.old = Some((status, output));
            } else if bless {
                block.status = status;
                block.output = output;
            } else if (status, output.as_str()) != block.due(old) {
                faults.push(fault(block, old, status, &output));
            }
        }
        if block
            .old
            .as_ref()
            .is_some_and(|(status, output)| (*status, output.as_str()) == block.due(false))
        {
            block.old = None;
        }
    }
    if bless {
        return write(&file, &script);
    }
    ensure!(
        faults.is_empty(),
        "{name}: {} of {} steps differ\n{}",
        faults.len(),
        script.blocks.len(),
        faults.join("\n")
    );
    Ok(())
}

fn write(file: &Path, script: &Script) -> Result<()> {
    fs::write(file, script.text()).with_context(|| format!("cannot write {}", file.display()))
}

/// What a step said.
struct Seen {
    /// By the CLI 20.10.
    old: bool,
    status: i32,
    output: String,
}

/// Both texts, the lines that only one has marked.
fn fault(block: &Block, old: bool, status: i32, output: &str) -> String {
    let (due_status, due) = block.due(old);
    let due: Vec<&str> = due.lines().collect();
    let seen: Vec<&str> = output.lines().collect();
    let lines = |all: &[&str], others: &[&str], mark: char| -> Vec<String> {
        let only = all.iter().filter(|line| !others.contains(line));
        only.map(|line| format!("{mark} {line}")).collect()
    };
    let mut text = format!("{:?}", block.step);
    if old {
        text += " by the CLI 20.10";
    }
    if status != due_status {
        text += &format!("\n- status {due_status}\n+ status {status}");
    }
    for line in lines(&due, &seen, '-')
        .into_iter()
        .chain(lines(&seen, &due, '+'))
    {
        text += "\n";
        text += &line;
    }
    text
}

struct Told<'a> {
    hosts: &'a [Host],
    names: Names,
    bless: bool,
}

impl Told<'_> {
    /// What a step says, once per CLI; nothing when this machine lacks its CLI.
    fn step(&mut self, block: &Block) -> Result<Vec<Seen>> {
        match &block.step {
            Step::Act(verb, what) => self.act(verb, what).map(|()| vec![]),
            Step::Command { host, line } => clis(block.flags)
                .into_iter()
                .map(|(program, old)| {
                    let ask = |told: &mut Self| told.command(*host, line, program, block);
                    self.until(block, old, ask)
                })
                .collect(),
            Step::Request { host, method, path } => {
                let body = block.input.clone().unwrap_or_default();
                let seen = self.until(block, false, |told| {
                    let path = told.current(Host(*host), path)?;
                    let (status, body) = names::ask(Host(*host), method, &path, &body)?;
                    Ok((status, told.shown(&pretty(&body), block.flags)))
                });
                Ok(vec![seen?])
            }
        }
    }

    fn act(&self, verb: &str, what: &str) -> Result<()> {
        match verb {
            "wait" => Host(1).converged(what),
            "until" => eventually(Duration::from_secs(60), what, || {
                let answer = shell(1, what, "docker", "")?;
                ensure!(answer.status == 0, "{answer}");
                Ok(())
            }),
            "cut" | "heal" | "kill" | "start" | "stop-engine" | "start-engine" => {
                let host = self.hosts.iter().find(|host| host.name() == what);
                host.with_context(|| format!("no host {what}"))?.verb(verb)
            }
            _ => bail!("no verb `{verb}`"),
        }
    }

    /// A path with `<index>` in it: the version that the object before `/update` has now.
    fn current(&self, host: Host, path: &str) -> Result<String> {
        if !path.contains("<index>") {
            return Ok(path.to_owned());
        }
        let (object, _) = path
            .split_once("/update")
            .context("<index> is for updates")?;
        let (_, body) = names::ask(host, "GET", object, "")?;
        let object: serde_json::Value = serde_json::from_str(&body)?;
        Ok(path.replace("<index>", &object["Version"]["Index"].to_string()))
    }

    /// Asks once, or until the answer is the one that is due. A file that is being written waits for an answer that stays.
    fn until(
        &mut self,
        block: &Block,
        old: bool,
        mut ask: impl FnMut(&mut Self) -> Result<(i32, String)>,
    ) -> Result<Seen> {
        let begun = Instant::now();
        let mut last = ask(self)?;
        let mut same = 0;
        while block.flags.until && begun.elapsed() < PATIENCE {
            let due = block.due(old) == (last.0, last.1.as_str());
            if (due && !self.bless) || same >= 5 {
                break;
            }
            std::thread::sleep(Duration::from_millis(if self.bless { 400 } else { 200 }));
            let next = ask(self)?;
            same = if self.bless && next == last {
                same + 1
            } else {
                0
            };
            last = next;
        }
        let (status, output) = last;
        Ok(Seen {
            old,
            status,
            output,
        })
    }

    fn command(
        &mut self,
        host: u8,
        line: &str,
        program: &str,
        block: &Block,
    ) -> Result<(i32, String)> {
        let input = block.input.as_deref().unwrap_or_default();
        let begun = Instant::now();
        let mut answer = shell(host, line, program, input)?;
        // The managers write nodes and services too; a script in which that is due says so.
        while answer.out.contains(TOO_LATE)
            && !block.output.contains(TOO_LATE)
            && begun.elapsed() < PATIENCE
        {
            answer = shell(host, line, program, input)?;
        }
        let output = self.shown(&answer.out, block.flags);
        Ok((answer.status, output))
    }

    fn shown(&mut self, text: &str, flags: Flags) -> String {
        self.names.ask(self.hosts);
        let folder = bed::root().join("tests/golden");
        let text = text.replace(&folder.display().to_string(), "$GOLDEN");
        let mut text = normal(&text, &self.names);
        if flags.anywhere {
            text = anywhere(&text);
        }
        if flags.last {
            text = text.lines().last().unwrap_or_default().to_owned();
        }
        text
    }
}

/// A line at a host's front door. `$N1` … are the front doors, `$GOLDEN` the scripts' folder, `$SCRATCH` one to write in.
fn shell(host: u8, line: &str, program: &str, input: &str) -> Result<Answer> {
    let env = [
        ("DOCKER_HOST", door(host)),
        ("DOCKER_CLI", program.to_owned()),
        (
            "GOLDEN",
            bed::root().join("tests/golden").display().to_string(),
        ),
        ("SCRATCH", bed::folder().display().to_string()),
        ("N1", door(1)),
        ("N2", door(2)),
        ("N3", door(3)),
    ];
    // In one stream, as a terminal shows it.
    let script = format!("docker() {{ command \"$DOCKER_CLI\" \"$@\"; }}; {{ {line}\n}} 2>&1");
    command(
        "timeout",
        ["60", "sh", "-c", &script],
        &env,
        input.as_bytes(),
    )
}

/// `DOCKER_HOST` of a host.
fn door(host: u8) -> String {
    format!("unix://{}", Host(host).front_door().display())
}

/// JSON on lines of its own; other text as it is.
fn pretty(body: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(body);
    let text = value
        .ok()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    text.unwrap_or_else(|| body.to_owned())
}

/// Programs to run a step with, and which of them are 20.10. Which CLI lies where differs from machine to machine, so each is asked for its
/// version.
fn clis(flags: Flags) -> Vec<(&'static str, bool)> {
    let aged = |program: &'static str| {
        let said = command(program, ["--version"], &[], b"").map(|answer| answer.out);
        (program, said.is_ok_and(|said| said.contains("version 20.")))
    };
    if !(flags.old || flags.new || flags.every) {
        return Cli::Default.program().map(aged).into_iter().collect();
    }
    let known = Cli::here().filter_map(Cli::program);
    let fits = |(_, old): &(&str, bool)| flags.every || (flags.old && *old) || (flags.new && !*old);
    known.map(aged).filter(fits).collect()
}
