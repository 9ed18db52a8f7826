//! The form of a golden script.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

/// How a step is run and compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Flags {
    /// With every CLI that this machine has; only for what changes nothing.
    pub every: bool,
    /// Only with Debian's 20.10.
    pub old: bool,
    /// Only with the newer CLI.
    pub new: bool,
    /// Asked again until it is so.
    pub until: bool,
    /// Node names are hidden and lines sorted.
    pub anywhere: bool,
    /// Only the last line counts.
    pub last: bool,
}

/// What is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A line for a shell, with `docker` at a host's front door.
    Command {
        /// Number of the host.
        host: u8,
        /// The line.
        line: String,
    },
    /// A request to a host's front door.
    Request {
        /// Number of the host.
        host: u8,
        /// `GET` …
        method: String,
        /// Path and query.
        path: String,
    },
    /// Something that prints nothing: a verb and what it is about.
    Act(String, String),
}

/// A step and what it is to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Block {
    /// Comment lines above, with their `#`.
    pub comments: Vec<String>,
    /// What.
    pub step: Step,
    /// How.
    pub flags: Flags,
    /// What it reads: standard input or a body.
    pub input: Option<String>,
    /// Exit or HTTP status.
    pub status: i32,
    /// Normalised output.
    pub output: String,
    /// Both as the CLI 20.10 has them, where that differs.
    pub old: Option<(i32, String)>,
}

impl Block {
    /// What is due: exit status and output; `old` of the CLI 20.10.
    #[must_use]
    pub fn due(&self, old: bool) -> (i32, &str) {
        match &self.old {
            Some((status, output)) if old => (*status, output),
            _ => (self.status, &self.output),
        }
    }
}

/// The line below which stands what the CLI 20.10 says.
const OLD: &str = "| 20.10";

/// A file of blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// In order.
    pub blocks: Vec<Block>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// Names the line that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut blocks: Vec<Block> = Vec::new();
        let mut comments = Vec::new();
        let mut body: Option<Vec<&str>> = None;
        for (at, line) in text.lines().enumerate() {
            let first = line.chars().next();
            if matches!(first, Some('$' | '>' | '@')) {
                close(&mut blocks, body.take());
                let block = head(line, std::mem::take(&mut comments));
                blocks.push(block.with_context(|| format!("line {}: {line}", at + 1))?);
                body = Some(Vec::new());
            } else if first == Some('#') {
                close(&mut blocks, body.take());
                comments.push(line.to_owned());
            } else if let Some(body) = &mut body {
                body.push(line);
            } else if !line.is_empty() {
                bail!("line {}: `{line}` belongs to no step", at + 1);
            }
        }
        close(&mut blocks, body.take());
        Ok(Script { blocks })
    }

    /// Writes it down as it is read.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for block in &self.blocks {
            for comment in &block.comments {
                text += comment;
                text.push('\n');
            }
            let flags = block.flags.text();
            // Writing to a string does not fail.
            let _ = match &block.step {
                Step::Command { host, line } => writeln!(text, "${flags} n{host} {line}"),
                Step::Request { host, method, path } => {
                    writeln!(text, ">{flags} n{host} {method} {path}")
                }
                Step::Act(verb, what) => writeln!(text, "@ {verb} {what}"),
            };
            for line in block.input.iter().flat_map(|input| input.lines()) {
                let _ = writeln!(text, "< {line}");
            }
            let silent = match block.step {
                Step::Request { .. } => 200,
                _ => 0,
            };
            if block.status != silent {
                let _ = writeln!(text, "= {}", block.status);
            }
            text += &block.output;
            if !block.output.is_empty() {
                text.push('\n');
            }
            if let Some((status, output)) = &block.old {
                let _ = writeln!(text, "{OLD}");
                if *status != silent {
                    let _ = writeln!(text, "= {status}");
                }
                text += output;
                if !output.is_empty() {
                    text.push('\n');
                }
            }
            text.push('\n');
        }
        text
    }
}

impl Flags {
    fn text(self) -> String {
        let marks = [
            (self.every, "="),
            (self.old, "20"),
            (self.new, "28"),
            (self.until, "~"),
            (self.anywhere, "?"),
            (self.last, "."),
        ];
        marks
            .into_iter()
            .filter_map(|(set, mark)| set.then_some(mark))
            .collect()
    }

    fn parse(text: &str) -> Result<Self> {
        let mut flags = Flags::default();
        let mut rest = text;
        while !rest.is_empty() {
            let marks: [(&str, &mut bool); 6] = [
                ("=", &mut flags.every),
                ("20", &mut flags.old),
                ("28", &mut flags.new),
                ("~", &mut flags.until),
                ("?", &mut flags.anywhere),
                (".", &mut flags.last),
            ];
            let found = marks
                .into_iter()
                .find_map(|(mark, flag)| Some((rest.strip_prefix(mark)?, flag)));
            let Some((left, flag)) = found else {
                bail!("no flag `{rest}`")
            };
            *flag = true;
            rest = left;
        }
        Ok(flags)
    }
}

/// A block with nothing below its first line yet.
fn head(line: &str, comments: Vec<String>) -> Result<Block> {
    let (mark, rest) = line.split_once(' ').context("a step has a blank")?;
    let (kind, flags) = mark.split_at(1);
    let (place, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let host = || {
        let number = place.strip_prefix('n').context("a host is n1, n2 …")?;
        number.parse::<u8>().context("a host is n1, n2 …")
    };
    let step = match kind {
        "$" => Step::Command {
            host: host()?,
            line: rest.to_owned(),
        },
        ">" => {
            let (method, path) = rest.split_once(' ').context("METHOD PATH")?;
            Step::Request {
                host: host()?,
                method: method.to_owned(),
                path: path.to_owned(),
            }
        }
        _ => Step::Act(place.to_owned(), rest.to_owned()),
    };
    let status = if kind == ">" { 200 } else { 0 };
    Ok(Block {
        comments,
        step,
        flags: Flags::parse(flags)?,
        input: None,
        status,
        output: String::new(),
        old: None,
    })
}

/// Gives the lines below a step to the last block.
fn close(blocks: &mut [Block], body: Option<Vec<&str>>) {
    let (Some(lines), Some(block)) = (body, blocks.last_mut()) else {
        return;
    };
    let mut lines = lines.as_slice();
    let silent = block.status;
    if let Some(at) = lines.iter().position(|line| *line == OLD) {
        let (status, rest) = status(&lines[at + 1..]);
        block.old = Some((status.unwrap_or(silent), joined(rest)));
        lines = &lines[..at];
    }
    while let Some((line, rest)) = lines.split_first() {
        if let Some(text) = line.strip_prefix("< ") {
            let input = block.input.get_or_insert_with(String::new);
            if !input.is_empty() {
                input.push('\n');
            }
            input.push_str(text);
            lines = rest;
        } else if let (Some(status), rest) = status(lines) {
            block.status = status;
            lines = rest;
        } else {
            break;
        }
    }
    block.output = joined(lines);
}

/// The status that the first of the lines says, and the others.
fn status<'a, 'b>(lines: &'b [&'a str]) -> (Option<i32>, &'b [&'a str]) {
    let said = lines.split_first().and_then(|(first, rest)| {
        let status = first.strip_prefix("= ")?.parse().ok()?;
        Some((status, rest))
    });
    said.map_or((None, lines), |(status, rest)| (Some(status), rest))
}

fn joined(lines: &[&str]) -> String {
    lines.join("\n").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_written_as_it_is_read() {
        let text = "# What it shows.\n$=~? n1 docker node ls\n< in\n= 1\nID  NAME\n  indented\n\n> n2 GET /v1.41/nodes\n= 503\n{}\n\n@ wait web\n\n$ n1 docker x\n= 1\nnew\n| 20.10\n= 125\nold\n\n$ n1 docker y\n| 20.10\n\n$20. n1 docker info | sed 1q\nx\n\n";
        let script = Script::parse(text).unwrap();
        assert_eq!(script.blocks.len(), 6);
        assert_eq!(script.blocks[3].due(false), (1, "new"));
        assert_eq!(script.blocks[3].due(true), (125, "old"));
        assert_eq!(script.blocks[4].due(true), (0, ""));
        assert_eq!(script.blocks[5].due(true), (0, "x"));
        assert_eq!(script.blocks[0].input.as_deref(), Some("in"));
        assert_eq!(script.text(), text);
    }

    #[test]
    fn what_is_no_step_is_named() {
        for text in ["hello", "$x n1 docker", "$ m1 docker", "> n1 GET"] {
            assert!(Script::parse(text).is_err(), "{text}");
        }
    }
}
