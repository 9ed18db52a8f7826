//! Becoming the program, or saying in Docker's words why not.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Replaces this process, the program looked up on the container's own `PATH`. Returns only when that fails.
pub(crate) fn become_it(program: &OsStr, arguments: &[OsString]) -> ExitCode {
    let error = Command::new(program).args(arguments).exec();
    let name = program.to_string_lossy();
    let (status, words) = judge(&name, error.kind(), Path::new(program).is_dir());
    match words {
        Some(words) => eprintln!("{words}"),
        None => eprintln!("exec: \"{name}\": {error}"),
    }
    ExitCode::from(status)
}

/// Exit status and, where Docker has its own words for the case, those.
fn judge(name: &str, kind: ErrorKind, is_dir: bool) -> (u8, Option<String>) {
    let has_path = name.contains('/');
    match kind {
        ErrorKind::NotFound if has_path => (
            127,
            Some(format!(
                "exec: \"{name}\": stat {name}: no such file or directory"
            )),
        ),
        ErrorKind::NotFound => (
            127,
            Some(format!(
                "exec: \"{name}\": executable file not found in $PATH"
            )),
        ),
        ErrorKind::PermissionDenied if has_path && is_dir => {
            (126, Some(format!("exec: \"{name}\": is a directory")))
        }
        ErrorKind::PermissionDenied => (126, Some(format!("exec: \"{name}\": permission denied"))),
        _ => (126, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_said_as_docker_says_it() {
        let (status, words) = judge("nosuch", ErrorKind::NotFound, false);
        assert_eq!(status, 127);
        assert_eq!(
            words.as_deref(),
            Some("exec: \"nosuch\": executable file not found in $PATH")
        );
    }

    #[test]
    fn a_program_that_may_not_run_is_126() {
        assert_eq!(
            judge("/etc/passwd", ErrorKind::PermissionDenied, false).0,
            126
        );
        assert_eq!(
            judge("/etc", ErrorKind::PermissionDenied, true)
                .1
                .as_deref(),
            Some("exec: \"/etc\": is a directory")
        );
    }
}
