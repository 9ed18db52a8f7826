//! Child processes: started with their words kept, so that a failure says what was run and what it answered.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// A command line about to run.
pub(crate) struct Run {
    command: Command,
    input: Option<Vec<u8>>,
}

/// Starts a command line: program and arguments separated by blanks, nothing quoted.
///
/// Arguments that may hold blanks go through [`Run::arg`].
pub(crate) fn run(line: &str) -> Run {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Run {
        command,
        input: None,
    }
}

/// Starts a program whose path may hold blanks.
pub(crate) fn program(path: &Path) -> Run {
    Run {
        command: Command::new(path),
        input: None,
    }
}

impl Run {
    /// Adds one argument as it is.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments as they are.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable out of the child's environment.
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs in this folder.
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Feeds these bytes to the child's standard input.
    pub(crate) fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs with our own terminal, so that the user sees the child's progress; fails when the child does.
    pub(crate) fn show(mut self) -> Result<()> {
        let said = self.said();
        let status = self
            .command
            .status()
            .with_context(|| format!("cannot start `{said}`"))?;
        if !status.success() {
            bail!("`{said}` failed ({status})");
        }
        Ok(())
    }

    /// Runs silently; a failure carries what the child wrote.
    pub(crate) fn quiet(self) -> Result<()> {
        self.read().map(drop)
    }

    /// Runs silently and answers what the child wrote to standard output, trimmed.
    pub(crate) fn read(self) -> Result<String> {
        let said = self.said();
        let output = self.output()?;
        if !output.status.success() {
            let err = String::from_utf8_lossy(&output.stderr);
            let out = String::from_utf8_lossy(&output.stdout);
            let words = [err.trim(), out.trim()]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or("it said nothing");
            bail!("`{said}` failed ({}): {words}", output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs silently and answers whether the child was content.
    pub(crate) fn succeeds(self) -> bool {
        self.output().is_ok_and(|output| output.status.success())
    }

    /// Runs silently; status and both streams are the caller's to judge.
    pub(crate) fn output(mut self) -> Result<Output> {
        let said = self.said();
        self.command.stdin(if self.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start `{said}`"))?;
        if let (Some(bytes), Some(mut pipe)) = (self.input.take(), child.stdin.take()) {
            // A child that closes early is judged by its status, not by our broken pipe.
            let _ = pipe.write_all(&bytes);
        }
        child
            .wait_with_output()
            .with_context(|| format!("lost `{said}`"))
    }

    /// The command itself, for callers that need more of it.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    fn said(&self) -> String {
        let mut said = self.command.get_program().to_string_lossy().into_owned();
        for arg in self.command.get_args() {
            said.push(' ');
            said.push_str(&arg.to_string_lossy());
        }
        if said.chars().count() > 300 {
            said = said.chars().take(300).chain(" …".chars()).collect();
        }
        said
    }
}

/// Where a program of this name lies on the path, sbin folders included (a plain user's path lacks them).
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
