//! Telling a story: a bed, what happens, and what is kept when it goes wrong.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::Result;

use crate::bed::{self, Bed, Shape};
use crate::command::command;

/// Tells the story on a bed of this shape. The story's name is the test's.
///
/// # Panics
/// When the story fails; logs, tables and a capture are kept first.
pub fn story(shape: Shape, tell: impl FnOnce(&Bed) -> Result<()>) {
    let name = std::thread::current()
        .name()
        .unwrap_or("story")
        .rsplit("::")
        .next()
        .unwrap_or("story")
        .to_owned();
    let bed = match Bed::take(shape) {
        Ok(bed) => bed,
        Err(error) => {
            keep(&name, None);
            note(&name, &format!("{error:#}"));
            panic!("no bed for this story: {error:#}");
        }
    };
    let capture = Capture::start(&name);
    let outcome = catch_unwind(AssertUnwindSafe(|| tell(&bed)));
    match outcome {
        Ok(Ok(())) => drop(capture),
        Ok(Err(error)) => {
            bed.spoil();
            keep(&name, capture);
            note(&name, &format!("{error:#}"));
            panic!("{error:#}");
        }
        Err(panic) => {
            bed.spoil();
            keep(&name, capture);
            resume_unwind(panic);
        }
    }
}

/// Lines of each log that are shown with a story's failure: where nobody sees the evidence they have to do.
const SHOWN: usize = 40;

/// Longer lines than this are cut where they are shown.
const WIDTH: usize = 400;

/// Keeps what can be looked at later, and shows the ends of logs. The story's failure is what is told, so nothing here fails.
fn keep(name: &str, capture: Option<Capture>) {
    if let Ok(xtask) = bed::xtask() {
        let _ = command(xtask, ["evidence", name], &[], b"");
    }
    if let Some(mut capture) = capture {
        capture.stop();
        let home = bed::root().join("target/evidence").join(name);
        let _ = fs::create_dir_all(&home);
        let _ = fs::rename(&capture.file, home.join("switch.pcap"));
    }
    show(name);
}

/// Shows what the swarm and the agents said last.
fn show(name: &str) {
    let home = bed::root().join("target/evidence").join(name);
    let mut shown = Vec::new();
    for host in 1..=9 {
        let files: &[&str] = match host {
            1 => &["nodes.txt", "tasks.txt", "weft.log"],
            _ => &["weft.log"],
        };
        shown.extend(files.iter().map(|file| format!("n{host}/{file}")));
    }
    for file in shown {
        if let Ok(text) = fs::read(home.join(&file)) {
            println!("--- the end of {file}:");
            for line in last_lines(&String::from_utf8_lossy(&text)) {
                println!("{line}");
            }
        }
    }
}

/// The last lines of a text, none too long.
fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(SHOWN));
    last.map(|line| line.chars().take(WIDTH).collect())
        .collect()
}

/// Writes down beside the evidence what went wrong.
fn note(name: &str, words: &str) {
    let home = bed::root().join("target/evidence").join(name);
    let _ = fs::create_dir_all(&home);
    let _ = fs::write(home.join("failure.txt"), words);
}

/// Everything that crosses the switch while the story is told; thrown away when it ends well.
struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    fn start(name: &str) -> Option<Self> {
        let file = bed::folder().join(format!("{name}.pcap"));
        // Heads of packets are enough; a story under load stops at some 200 MB.
        let child = Command::new("nsenter")
            .args([
                "--net=/run/netns/weft-switch",
                "tcpdump",
                "-q",
                "-U",
                "-i",
                "br0",
                "-s",
                "192",
                "-c",
                "1000000",
                "-Z",
                "root",
                "-w",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Capture { child, file })
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_file(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::{SHOWN, WIDTH, last_lines};

    #[test]
    fn the_last_lines_are_shown_and_none_too_long() {
        let lines: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let shown = last_lines(&lines.join("\n"));
        assert_eq!(shown.len(), SHOWN);
        assert_eq!(shown.last().map(String::as_str), Some("99"));
        let long = last_lines(&"ä".repeat(WIDTH * 2));
        assert_eq!(long, ["ä".repeat(WIDTH)]);
        assert!(last_lines("").is_empty());
    }
}
