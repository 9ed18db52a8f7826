//! What a node remembers over a restart: its tasks and where they were, and the last network state.
//!
//! One small file per task, replaced whole by rename, so that a killed agent leaves the old or the
//! new and never half. They are not synced to the disk: what a power cut takes is told again by a
//! manager, and the containers are dead anyway. A file that cannot be read, or is not what was
//! written, is skipped and named: a manager tells of its task again, and the container is taken up.
//!
//! The network is one file too, and beside it the steps taken since, each appended before the kernel is told
//! of it: an agent that comes back never knows less than the kernel holds, so it takes nothing away.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use weft_proto::codec::{decode, encode};
use weft_types::{
    NodeId, TaskId,
    netstate::{NetDelta, NetState},
    task::{Task, TaskStatus},
};

use crate::guest::Guest;

/// The journal of a node.
#[derive(Debug, Clone)]
pub struct Journal {
    dir: PathBuf,
}

/// What the journal holds of a task.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    task: Task,
    status: TaskStatus,
}

/// The journal cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {path} of the agent's journal: {cause}", path = path.display())]
pub struct JournalError {
    verb: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl Journal {
    /// The journal under a state directory.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let dir = state_dir.join("journal");
        let journal = Self { dir };
        let tasks = journal.tasks();
        fs::create_dir_all(&tasks).map_err(|cause| JournalError {
            verb: "make",
            path: tasks,
            cause,
        })?;
        Ok(journal)
    }

    fn tasks(&self) -> PathBuf {
        self.dir.join("tasks")
    }

    fn task_path(&self, task: TaskId) -> PathBuf {
        self.tasks().join(task.as_str())
    }

    /// All tasks remembered.
    #[must_use]
    pub fn load_tasks(&self) -> Vec<(Task, TaskStatus)> {
        let Ok(files) = fs::read_dir(self.tasks()) else {
            return Vec::new();
        };
        let entries = files
            .flatten()
            .filter_map(|file| read::<Entry>(&file.path()));
        entries.map(|entry| (entry.task, entry.status)).collect()
    }

    /// Remembers a task.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_task(&self, task: &Task, status: &TaskStatus) -> Result<(), JournalError> {
        let entry = Entry {
            task: task.clone(),
            status: status.clone(),
        };
        write(&self.task_path(task.id), &entry)
    }

    /// Forgets a task.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove_task(&self, task: TaskId) -> Result<(), JournalError> {
        remove(self.task_path(task))
    }

    fn guests(&self) -> PathBuf {
        self.dir.join("guests")
    }

    /// Users' own containers on swarm networks.
    #[must_use]
    pub fn load_guests(&self) -> Vec<Guest> {
        let Ok(files) = fs::read_dir(self.guests()) else {
            return Vec::new();
        };
        let guests = files.flatten();
        guests.filter_map(|file| read(&file.path())).collect()
    }

    /// Remembers a user's own container.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_guest(&self, guest: &Guest) -> Result<(), JournalError> {
        let dir = self.guests();
        let made = fs::create_dir_all(&dir);
        made.map_err(|cause| JournalError {
            verb: "make",
            path: dir.clone(),
            cause,
        })?;
        write(&dir.join(&guest.container), guest)
    }

    /// Forgets a user's own container.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove_guest(&self, container: &str) -> Result<(), JournalError> {
        remove(self.guests().join(container))
    }

    fn net_path(&self) -> PathBuf {
        self.dir.join("network")
    }

    fn steps_path(&self) -> PathBuf {
        self.dir.join("network-steps")
    }

    /// The last network state, its steps taken; the default when there is none.
    #[must_use]
    pub fn load_net(&self) -> NetState {
        let mut net: NetState = read(&self.net_path()).unwrap_or_default();
        for step in read_steps(&self.steps_path()) {
            // Those from before the whole state are in it, and start from earlier revisions.
            if step.base != 0 && step.base == net.revision {
                let _fits = net.apply(step);
            }
        }
        net
    }

    /// Remembers the whole network state.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_net(&self, net: &NetState) -> Result<(), JournalError> {
        write(&self.net_path(), net)?;
        remove(self.steps_path())
    }

    /// Remembers one step from the network state remembered so far: as little to write as it changes.
    ///
    /// # Errors
    /// When the file cannot be written; the steps before it are kept.
    pub fn add_net_step(&self, step: &NetDelta) -> Result<(), JournalError> {
        let path = self.steps_path();
        let added = closed(step).and_then(|bytes| append(&path, &bytes));
        added.map_err(|cause| JournalError {
            verb: "add to",
            path,
            cause,
        })
    }

    /// The managers last known, with `ip:port`.
    #[must_use]
    pub fn load_managers(&self) -> Vec<(Option<NodeId>, String)> {
        read(&self.dir.join("managers")).unwrap_or_default()
    }

    /// Remembers the managers.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_managers(&self, managers: &[(Option<NodeId>, String)]) -> Result<(), JournalError> {
        write(&self.dir.join("managers"), &managers)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn wipe(&self) -> Result<(), JournalError> {
        match fs::remove_dir_all(&self.dir) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(JournalError {
                verb: "remove",
                path: self.dir.clone(),
                cause,
            }),
            _ => Ok(()),
        }
    }
}

fn remove(path: PathBuf) -> Result<(), JournalError> {
    match fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(JournalError {
            verb: "remove",
            path,
            cause,
        }),
        _ => Ok(()),
    }
}

/// Steps, each behind its length in bytes (big-endian `u32`), up to the first that is not whole.
fn read_steps(path: &Path) -> Vec<NetDelta> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(path = %path.display(), %error, "cannot read a file of the journal");
            }
            return Vec::new();
        }
    };
    let mut rest = bytes.as_slice();
    let mut steps = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let whole = behind.split_at_checked(u32::from_be_bytes(*length) as usize);
        let Some((step, _)) = whole else {
            tracing::debug!(path = %path.display(), "the last step of the network was not written whole");
            break;
        };
        match opened(step) {
            Ok(step) => steps.push(step),
            Err(why) => {
                tracing::warn!(path = %path.display(), why, "a step of the network is not understood, and those behind it are left out");
                break;
            }
        }
        rest = whole.map_or(&[], |(_, rest)| rest);
    }
    steps
}

/// Adds a record for [`read_steps`], whole or not at all.
fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let record = [&length.to_be_bytes(), bytes].concat();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let before = file.metadata()?.len();
    file.write_all(&record).inspect_err(|_| {
        // Part of a record, as a full disk leaves it, would hide all that follow.
        let _ = file.set_len(before);
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read a file of the journal");
            return None;
        }
    };
    // The rest of an interrupted write.
    if path.extension().is_some() {
        return None;
    }
    match opened(&bytes) {
        Ok(value) => Some(value),
        Err(why) => {
            tracing::warn!(path = %path.display(), why, "a file of the journal is not understood and left out");
            None
        }
    }
}

/// Stands behind the content, before its sum: FNV-1a, 64 bit, big-endian. Versions that knew of no
/// sums read the content and stop before it.
const MARK: [u8; 4] = *b"sum\n";

fn sum(content: &[u8]) -> [u8; 8] {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let sum = content.iter().fold(0xcbf2_9ce4_8422_2325, step);
    sum.to_be_bytes()
}

/// `value` as it is written: what [`opened`] reads.
fn closed<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = encode(value).map_err(io::Error::other)?;
    let sum = sum(&bytes);
    bytes.extend(MARK);
    bytes.extend(sum);
    Ok(bytes)
}

/// What `bytes` say; why they say nothing otherwise.
fn opened<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut content = bytes;
    if let Some((marked, written)) = bytes.split_last_chunk()
        && let Some((summed, &MARK)) = marked.split_last_chunk()
    {
        if sum(summed) != *written {
            return Err("it is damaged: its content does not match its sum".to_owned());
        }
        content = summed;
    }
    decode(content).map_err(|error| error.to_string())
}

/// Registry credentials are inside: readable by the owner alone.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), JournalError> {
    let named = |cause| JournalError {
        verb: "write",
        path: path.to_owned(),
        cause,
    };
    let bytes = closed(value).map_err(named)?;
    let fresh = path.with_extension("new");
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh);
    opened
        .and_then(|mut file| file.write_all(&bytes))
        .map_err(named)?;
    fs::rename(&fresh, path).map_err(|cause| JournalError {
        verb: "replace",
        path: path.to_owned(),
        cause,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(revision: u64) -> NetState {
        NetState {
            revision,
            ring_seed: revision * 10,
            ..NetState::default()
        }
    }

    #[test]
    fn steps_lead_on_from_the_whole_network_and_those_before_it_count_no_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        assert_eq!(journal.load_net(), NetState::default());
        journal.save_net(&state(3)).expect("saved");
        for revision in 4..7 {
            let step = state(revision - 1).delta_to(&state(revision));
            journal.add_net_step(&step).expect("added");
            assert_eq!(journal.load_net(), state(revision));
        }
        // Killed between the two halves of a saving: the steps are there still.
        write(&journal.net_path(), &state(5)).expect("written");
        assert_eq!(journal.load_net(), state(6));
        journal.save_net(&state(6)).expect("saved");
        assert!(!journal.steps_path().exists());
        assert_eq!(journal.load_net(), state(6));
    }

    #[test]
    fn a_step_that_was_cut_short_is_left_out_and_those_before_it_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path()).expect("a journal");
        journal.save_net(&state(3)).expect("saved");
        for revision in [4, 5] {
            let step = state(revision - 1).delta_to(&state(revision));
            journal.add_net_step(&step).expect("added");
        }
        let whole = fs::read(journal.steps_path()).expect("steps");
        let first = whole.len() / 2;
        for cut in 0..whole.len() {
            fs::write(journal.steps_path(), &whole[..cut]).expect("written");
            let expected = state(if cut < first { 3 } else { 4 });
            assert_eq!(journal.load_net(), expected, "cut at {cut}");
        }
    }
}
