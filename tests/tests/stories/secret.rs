//! Secrets and configs: filled in for each task, on its node and nowhere else, never on a disk.

use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::{Cli, Host, Shape, eventually, story};

const PATIENCE: Duration = Duration::from_secs(60);

/// Nobody else writes these words.
const WORDS: &str = "the-words-that-only-one-task-may-know";

fn put(host: Host, words: &[&str], data: &str) -> Result<()> {
    let said = host.docker_words(Cli::Default, words, data.as_bytes())?;
    said.ok().map(drop)
}

/// Files of a host that hold the secret's words, each with its file system. A host's engine keeps its sockets and
/// its containers' own files there too.
fn holders(host: Host) -> Result<Vec<String>> {
    let script = format!(
        "for file in $(grep -rlFs -D skip {WORDS} {dir} /run); do echo $(stat -f -c %T $file) $file; done",
        dir = host.dir().display()
    );
    let found = host.run(&["sh", "-c", &script])?.ok()?;
    Ok(found.lines().map(str::to_owned).collect())
}

#[test]
fn a_templated_secret_is_only_where_its_task_runs() {
    story(Shape::Swarm(3, 1), |bed| {
        let [n1, n2, n3] = bed.all()?;
        put(n1, &["secret", "create", "key", "-"], WORDS)?;
        put(
            n1,
            &[
                "secret",
                "create",
                "--template-driver",
                "golang",
                "conf",
                "-",
            ],
            "{{ .Service.Name }} at {{ .Node.Hostname }}: {{ secret \"plain\" }} {{ env \"COLOUR\" }}",
        )?;
        put(
            n1,
            &[
                "config",
                "create",
                "--template-driver",
                "golang",
                "site",
                "-",
            ],
            "slot {{ .Task.Slot }} of {{ .Service.Name }}",
        )?;
        n1.create(
            "web",
            "--constraint node.hostname==n2 --env COLOUR=red --secret source=key,target=plain --secret source=conf,target=full,mode=0400 --config source=site,target=/etc/site,mode=0444 --stop-signal SIGKILL weft/tools sleep 100000",
        )?;
        let read = |path: &str| n2.exec("web", &["cat", path])?.ok();
        ensure!(read("/run/secrets/plain")? == WORDS, "the plain secret");
        let full = read("/run/secrets/full")?;
        ensure!(
            full == format!("web at n2: {WORDS} red"),
            "filled in: {full}"
        );
        let site = read("/etc/site")?;
        ensure!(site == "slot 1 of web", "filled in: {site}");
        let mode = n2.exec("web", &["stat", "-L", "-c", "%a", "/run/secrets/full"])?;
        ensure!(mode.out == "400", "its mode: {mode}");
        // On the task's own node it is in memory; the others, the manager among them, hold it nowhere in plain words.
        let here = holders(n2)?;
        ensure!(
            !here.is_empty() && here.iter().all(|file| file.starts_with("tmpfs ")),
            "n2 holds the secret in {here:?}"
        );
        for host in [n1, n3] {
            let there = holders(host)?;
            ensure!(there.is_empty(), "{} holds it in {there:?}", host.name());
        }
        for line in [
            "secret inspect key",
            "secret inspect --pretty conf",
            "service inspect web",
        ] {
            let shown = n1.say(line)?;
            ensure!(!shown.contains(WORDS), "`{line}` shows it: {shown}");
        }
        n1.docker("secret rm key")?
            .refused("is in use by the following service: web")?;
        n1.say("service rm web")?;
        eventually(PATIENCE, "the secret to leave n2", || {
            let here = holders(n2)?;
            ensure!(here.is_empty(), "still in {here:?}");
            Ok(())
        })
    });
}
