//! The gate in a network namespace of its own, as in a container whose sandbox is still being made. Needs root.

use std::process::{Command, Output, Stdio};

const GATE: &str = env!("CARGO_BIN_EXE_weft-gate");

/// Runs a shell script in a namespace that has only loopback; the gate is `$GATE`.
fn in_sandbox(script: &str) -> Output {
    Command::new("unshare")
        .args(["--net", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg(format!("ip link set lo up; {script}"))
        .env("GATE", GATE)
        .stdin(Stdio::null())
        .output()
        .expect("unshare is there and we are root")
}

/// A resolver that accepts and says nothing; its output is closed, for it outlives the script's own words.
const RESOLVER: &str =
    "socat -u TCP-LISTEN:53,bind=127.0.0.11,fork,reuseaddr OPEN:/dev/null >/dev/null 2>&1 &";

#[test]
fn the_program_starts_only_once_the_resolver_answers() {
    let dir = tempfile();
    let script = format!(
        "$GATE cat {dir}/order & gate=$!; echo resolver > {dir}/order; {RESOLVER} wait $gate"
    );
    let output = in_sandbox(&script);
    let _ = std::fs::remove_dir_all(&dir);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "resolver\n",
        "{output:?}"
    );
}

#[test]
fn the_program_takes_the_gates_place_with_its_words_and_its_status() {
    let output = in_sandbox(&format!(
        "{RESOLVER} exec $GATE sh -c 'echo $$ $0; exit 7' 'two words'"
    ));
    // Process 1 of the namespace became the gate and then the program.
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1 two words\n",
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_program_that_is_not_there_is_127_in_dockers_words() {
    let output = in_sandbox(&format!("{RESOLVER} exec $GATE nosuch"));
    assert_eq!(output.status.code(), Some(127));
    let words = "exec: \"nosuch\": executable file not found in $PATH\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), words);
}

#[test]
fn a_file_that_is_no_program_is_126() {
    let output = in_sandbox(&format!("{RESOLVER} exec $GATE /etc/passwd"));
    assert_eq!(output.status.code(), Some(126));
    let words = "exec: \"/etc/passwd\": permission denied\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), words);
}

#[test]
fn a_stop_signal_ends_the_wait() {
    // Sent again and again: the first may come before the gate listens.
    let script =
        "$GATE true & gate=$!; while kill -TERM $gate 2>/dev/null; do :; done; wait $gate; echo $?";
    let output = in_sandbox(script);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "143\n",
        "{output:?}"
    );
}

#[test]
fn the_program_inherits_no_blocked_signal() {
    let output = in_sandbox(&format!(
        "{RESOLVER} exec $GATE grep SigBlk /proc/self/status"
    ));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "SigBlk:\t0000000000000000\n",
        "{output:?}"
    );
}

fn tempfile() -> String {
    let dir = std::env::temp_dir().join(format!("weft-gate-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder for the test");
    dir.to_string_lossy().into_owned()
}
