//! Running a program and keeping all that it said.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What a program said and how it ended.
pub struct Answer {
    /// Standard output, trimmed.
    pub out: String,
    /// Standard error, trimmed.
    pub err: String,
    /// Exit status; 128 + n after signal n.
    pub status: i32,
    said: String,
}

impl Answer {
    /// The output of a program that was content.
    ///
    /// # Errors
    /// When its status is not 0; the message holds its words.
    pub fn ok(self) -> Result<String> {
        if self.status != 0 {
            bail!("{self}");
        }
        Ok(self.out)
    }

    /// Whether the CLI was refused because the object that it read and changed was written by another meanwhile.
    pub fn came_too_late(&self) -> bool {
        self.status != 0 && self.err.contains("update out of sequence")
    }

    /// The words of a program that refused.
    ///
    /// # Errors
    /// When it did not refuse, or when `words` are not among what it said.
    pub fn refused(self, words: &str) -> Result<String> {
        if self.status == 0 {
            bail!(
                "`{}` was accepted; a refusal with `{words}` was due",
                self.said
            );
        }
        if !self.err.contains(words) && !self.out.contains(words) {
            bail!("{self}; a refusal with `{words}` was due");
        }
        Ok(self.err)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` ended with {}: {} {}",
            self.said, self.status, self.err, self.out
        )
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started.
pub fn command<S: AsRef<OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = S>,
    env: &[(&str, String)],
    input: &[u8],
) -> Result<Answer> {
    let mut command = Command::new(program);
    command
        .args(args)
        .envs(env.iter().map(|(name, value)| (name, value)));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let words = command
        .get_args()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    let said = format!("{program} {words}");
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{said}`"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read is judged by its status.
        let _ = pipe.write_all(input);
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("lost `{said}`"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let status = {
        use std::os::unix::process::ExitStatusExt;
        output
            .status
            .code()
            .or_else(|| output.status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    };
    Ok(Answer {
        out: text(&output.stdout),
        err: text(&output.stderr),
        status,
        said,
    })
}

/// A command line's words: separated by blanks, except within `'…'`, which quotes, and `{{…}}`, which stays as it is.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut quoted, mut braces) = (false, 0_usize);
    for letter in line.chars() {
        match letter {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
                continue;
            }
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            ' ' if !quoted && braces < 2 => {
                words.extend(word.take());
                continue;
            }
            _ => {}
        }
        word.get_or_insert_default().push(letter);
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn blanks_within_quotes_and_templates_separate_nothing() {
        assert_eq!(
            words("ps  --format {{json .Spec}}/{{.ID}} 'two words' '' end"),
            [
                "ps",
                "--format",
                "{{json .Spec}}/{{.ID}}",
                "two words",
                "",
                "end"
            ]
        );
    }
}
