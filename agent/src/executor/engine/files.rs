//! Files of the host that a task's container gets.

use std::{
    fmt::Write as _,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use weft_dns::resolv_conf::ResolvConf;
use weft_types::{TaskId, container::ContainerSpec, task::Task};

use super::{body::HostFiles, gate};
use crate::{executor::DeliveredFile, task::Failure};

/// The engine's host's resolvers, for search domains and options.
const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// Name of the gate in the state directory.
pub const GATE_FILE: &str = "weft-gate";

/// A file of the state directory that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path}: {cause}", path = path.display())]
pub struct FilesError {
    verb: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl From<FilesError> for Failure {
    fn from(error: FilesError) -> Self {
        // A full disk may have room later.
        Self::passing(error.to_string())
    }
}

fn named(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.to_owned();
    move |cause| FilesError { verb, path, cause }
}

/// The places of tasks' files.
#[derive(Clone)]
pub(super) struct TaskFiles {
    state_dir: Arc<PathBuf>,
}

impl TaskFiles {
    pub(super) fn new(state_dir: PathBuf) -> Result<Self, FilesError> {
        let files = Self {
            state_dir: Arc::new(state_dir),
        };
        for dir in [files.containers(), files.delivered()] {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o711).create(&dir);
            made.map_err(named("make directory", &dir))?;
        }
        files.mount_delivered()?;
        files.write_gate()?;
        Ok(files)
    }

    fn gate(&self) -> PathBuf {
        self.state_dir.join(GATE_FILE)
    }

    fn write_gate(&self) -> Result<(), FilesError> {
        let gate = self.gate();
        gate::write(&gate).map_err(named("write the gate to", &gate))
    }

    fn containers(&self) -> PathBuf {
        self.state_dir.join("containers")
    }

    fn delivered(&self) -> PathBuf {
        self.state_dir.join("files")
    }

    /// Secrets never touch a disk: their place is a tmpfs. One that an earlier life of this agent
    /// mounted is kept, running containers look into it.
    fn mount_delivered(&self) -> Result<(), FilesError> {
        let dir = self.delivered();
        let here = fs::metadata(&dir).map_err(named("look at", &dir))?;
        let above =
            fs::metadata(self.state_dir.as_path()).map_err(named("look at", &self.state_dir))?;
        if std::os::unix::fs::MetadataExt::dev(&here) != std::os::unix::fs::MetadataExt::dev(&above)
        {
            return Ok(());
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some("weft-files"),
            &dir,
            Some("tmpfs"),
            flags,
            Some("mode=0711"),
        )
        .map_err(io::Error::from)
        .map_err(named("mount a tmpfs at", &dir))
    }

    /// Writes everything that the container of `task` gets and says where it lies.
    pub(super) fn lay(
        &self,
        task: &Task,
        spec: &ContainerSpec,
        delivered: &[DeliveredFile],
    ) -> Result<HostFiles, FilesError> {
        if !self.gate().is_file() {
            // Whoever emptied the state directory took it along.
            self.write_gate()?;
        }
        let dir = self.containers().join(task.id.as_str());
        fs::create_dir_all(&dir).map_err(named("make directory", &dir))?;
        let resolv_conf = dir.join("resolv.conf");
        fs::write(&resolv_conf, resolv_conf_text(spec)).map_err(named("write", &resolv_conf))?;
        let hosts = dir.join("hosts");
        fs::write(&hosts, "").map_err(named("write", &hosts))?;
        let mut placed = Vec::new();
        let dir = self.delivered().join(task.id.as_str());
        if !delivered.is_empty() {
            let mut builder = fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o711).create(&dir);
            made.map_err(named("make directory", &dir))?;
        }
        for (number, file) in delivered.iter().enumerate() {
            let path = dir.join(number.to_string());
            write_delivered(&path, file).map_err(named("deliver", &path))?;
            placed.push((path, file.target.clone()));
        }
        Ok(HostFiles {
            gate: self.gate(),
            resolv_conf,
            hosts,
            delivered: placed,
        })
    }

    /// Fills the hosts file that [`TaskFiles::lay`] left empty: only now is the host name known.
    pub(super) fn write_hosts(
        &self,
        task: &Task,
        spec: &ContainerSpec,
        hostname: &str,
    ) -> Result<(), FilesError> {
        let path = self.containers().join(task.id.as_str()).join("hosts");
        fs::write(&path, hosts_text(task, spec, hostname)).map_err(named("write", &path))
    }

    /// Removes what lies here for a task. What cannot be removed is left to the next sweep.
    pub(super) fn clear(&self, task: TaskId) {
        for dir in [self.containers(), self.delivered()] {
            let dir = dir.join(task.as_str());
            match fs::remove_dir_all(&dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(dir = %dir.display(), %error, "cannot remove a task's files")
                }
            }
        }
    }

    /// Removes everything: the node leaves its swarm.
    pub(super) fn clear_everything(&self) {
        let dir = self.delivered();
        if let Err(error) = umount2(&dir, MntFlags::MNT_DETACH) {
            tracing::debug!(dir = %dir.display(), %error, "cannot unmount the files of tasks");
        }
        if let Err(error) = fs::remove_file(self.gate()) {
            tracing::debug!(%error, "cannot remove the gate");
        }
        for dir in [self.containers(), dir] {
            if let Err(error) = fs::remove_dir_all(&dir) {
                tracing::debug!(dir = %dir.display(), %error, "cannot remove the files of tasks");
            }
        }
    }
}

fn write_delivered(path: &Path, file: &DeliveredFile) -> io::Result<()> {
    // Closed to others until it has its owner; a leftover may be read-only.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(path, b"")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, &file.content)?;
    chown(path, Some(file.uid), Some(file.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(file.mode & 0o7777))
}

fn resolv_conf_text(spec: &ContainerSpec) -> String {
    let host = fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default();
    let wishes = spec.dns_config.clone().unwrap_or_default();
    ResolvConf::parse(&host).for_sandbox(
        &wishes.search.unwrap_or_default(),
        &wishes.options.unwrap_or_default(),
    )
}

/// The container's `/etc/hosts`, as the engine writes it for a container with networks.
fn hosts_text(task: &Task, spec: &ContainerSpec, hostname: &str) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for line in spec.hosts.iter().flatten() {
        let _infallible = writeln!(text, "{line}");
    }
    for attachment in &task.networks_attachments {
        for address in &attachment.addresses {
            let _infallible = writeln!(text, "{}\t{hostname}", address.ip());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_comes_back_after_the_state_directory_was_emptied() {
        let state = tempfile::tempdir().expect("a directory");
        let files = TaskFiles {
            state_dir: Arc::new(state.path().to_owned()),
        };
        let task = serde_json::json!({ "ID": "0000000000000000000000001" });
        let task: Task = serde_json::from_value(task).expect("a task");
        let lay = || files.lay(&task, &ContainerSpec::default(), &[]);
        let laid = lay().expect("files of a task");
        assert!(laid.gate.is_file(), "nothing at {}", laid.gate.display());
        // A container that was started meanwhile: the engine makes what its binds lack.
        fs::remove_file(&laid.gate).expect("the gate is removed");
        fs::create_dir(&laid.gate).expect("a directory in its place");
        let laid = lay().expect("files of the next task");
        assert!(laid.gate.is_file(), "{} is no file", laid.gate.display());
    }

    #[test]
    fn a_cause_is_said_once() {
        let missing = Path::new("/nonexistent/weft-gate");
        let refused = gate::write(missing).map_err(named("write the gate to", missing));
        let error = refused.expect_err("there is no such directory");
        assert_eq!(
            error.to_string(),
            "cannot write the gate to /nonexistent/weft-gate: No such file or directory (os error 2)"
        );
        // Who prints the causes behind an error would say it again.
        assert!(std::error::Error::source(&error).is_none());
    }
}
