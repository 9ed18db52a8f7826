//! The log, the vote and the marks, in one database.

use std::{
    fmt::Debug,
    fs, io,
    ops::{Bound, RangeBounds},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openraft::{
    LogState, RaftLogReader,
    alias::{EntryOf, LogIdOf, VoteOf},
    entry::RaftEntry,
    storage::{IOFlushed, RaftLogStorage},
};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use weft_proto::codec;

use super::{Pace, Seal, Types};

/// Entries by index, sealed.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Vote, committed, purged and the member number by name, sealed.
const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("marks");

/// Bytes of entries read at once for one message to a peer.
const READ_BYTES: usize = 8 << 20;

/// How long to wait for the lock of a database that the last user is still closing.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// Said of a database that contradicts itself.
const DAMAGED: &str = "log.redb is damaged: what it holds does not match its checksums";

/// The log of this manager. Clones share the database.
#[derive(Debug, Clone)]
pub struct LogStore(Arc<Inner>);

struct Inner {
    database: Database,
    seal: Seal,
    pace: Arc<Pace>,
}

impl Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("log.redb")
    }
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

fn entry_place(index: u64) -> Vec<u8> {
    format!("log entry {index}").into_bytes()
}

/// Bytes of the log kept in memory. It is read when a manager starts or follows late; left alone the database would
/// keep a gigabyte.
const CACHE_BYTES: usize = 16 << 20;

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// Makes an empty database at `path`. It is made beside it and moved there whole, as one that a
/// power cut has left half made would never open again.
fn make(directory: &Path, path: &Path) -> io::Result<()> {
    let new = directory.join("log.redb.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    drop(builder().create(&new).map_err(other)?);
    fs::rename(&new, path)?;
    fs::File::open(directory)?.sync_all()
}

/// The database that `open` opens, checked, its tables made.
fn sound(open: impl FnOnce() -> Result<Database, DatabaseError>) -> io::Result<Database> {
    let mut database = open().map_err(other)?;
    // The seals tell of a changed record, not of a lost one; and redb looks at its checksums by
    // itself only after an unclean stop.
    if !database.check_integrity().map_err(other)? {
        return Err(other(DAMAGED));
    }
    database.compact().map_err(other)?;
    let write = database.begin_write().map_err(other)?;
    write.open_table(LOG).map_err(other)?;
    write.open_table(MARKS).map_err(other)?;
    write.commit().map_err(other)?;
    Ok(database)
}

impl LogStore {
    /// Opens or makes the log in `directory`.
    ///
    /// # Errors
    /// When the database cannot be opened or is damaged beyond its own repair.
    pub fn open(directory: &Path, seal: Seal) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let path = directory.join("log.redb");
        if !path.try_exists()? {
            make(directory, &path)?;
        }
        let deadline = Instant::now() + OPEN_PATIENCE;
        let open = || loop {
            match builder().create(&path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                opened => break opened,
            }
        };
        Self::with(open, seal)
    }

    /// The log on a storage of the caller's: how its behaviour on bad disks is tested.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn open_on(backend: impl StorageBackend, seal: Seal) -> io::Result<Self> {
        Self::with(|| builder().create_with_backend(backend), seal)
    }

    fn with(
        open: impl FnOnce() -> Result<Database, DatabaseError>,
        seal: Seal,
    ) -> io::Result<Self> {
        // Some damage of its own bookkeeping makes redb panic. Nothing of it is kept then.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| sound(open)));
        let database = opened.unwrap_or_else(|_| Err(other(DAMAGED)))?;
        Ok(Self(Arc::new(Inner {
            database,
            seal,
            pace: Arc::default(),
        })))
    }

    /// How long this log's writes take, also after it was closed.
    #[must_use]
    pub fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.0.pace)
    }

    /// The number of this member, once it has one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn member_number(&self) -> io::Result<Option<u64>> {
        self.0.mark("member")
    }

    /// Keeps the number of this member.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn set_member_number(&self, number: u64) -> io::Result<()> {
        self.0.set_mark("member", &number, Durability::Immediate)
    }

    /// All entries there are, in order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn entries(&self) -> io::Result<Vec<EntryOf<Types>>> {
        self.0.read(.., usize::MAX)
    }

    /// The last entry known to be committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn committed(&self) -> io::Result<Option<LogIdOf<Types>>> {
        self.0.mark("committed")
    }

    /// Forgets all entries and sets the marks as if the log had been purged up to `last`, in a term
    /// later than any that this log has seen.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn reset(&self, last: Option<LogIdOf<Types>>, member: u64) -> io::Result<()> {
        let voted: Option<VoteOf<Types>> = self.0.mark("vote")?;
        let term = voted.map_or(0, |vote| vote.leader_id.term);
        let term = term.max(last.map_or(0, |id| id.leader_id.term)) + 1;
        let vote = VoteOf::<Types>::new(term, member);
        let write = self.0.database.begin_write().map_err(other)?;
        {
            let mut log = write.open_table(LOG).map_err(other)?;
            log.retain(|_, _| false).map_err(other)?;
            let mut marks = write.open_table(MARKS).map_err(other)?;
            let record = self.0.record("vote", &vote)?;
            marks.insert("vote", record.as_slice()).map_err(other)?;
            for name in ["committed", "purged"] {
                let record = self.0.record(name, &last)?;
                marks.insert(name, record.as_slice()).map_err(other)?;
            }
            let record = self.0.record("member", &member)?;
            marks.insert("member", record.as_slice()).map_err(other)?;
        }
        write.commit().map_err(other)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(other)?
    }
}

impl Inner {
    fn record<T: Serialize>(&self, name: &str, value: &T) -> io::Result<Vec<u8>> {
        let plain = codec::encode(value).map_err(other)?;
        Ok(self.seal.seal(name.as_bytes(), &plain))
    }

    fn mark<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let read = self.database.begin_read().map_err(other)?;
        let marks = read.open_table(MARKS).map_err(other)?;
        let Some(record) = marks.get(name).map_err(other)? else {
            return Ok(None);
        };
        let plain = self
            .seal
            .open_record(name.as_bytes(), record.value())
            .map_err(other)?;
        codec::decode(&plain).map_err(other)
    }

    fn set_mark<T: Serialize>(
        &self,
        name: &str,
        value: &T,
        durability: Durability,
    ) -> io::Result<()> {
        let record = self.record(name, value)?;
        let mut write = self.database.begin_write().map_err(other)?;
        write.set_durability(durability).map_err(other)?;
        {
            let mut marks = write.open_table(MARKS).map_err(other)?;
            marks.insert(name, record.as_slice()).map_err(other)?;
        }
        write.commit().map_err(other)
    }

    fn open_entry(&self, index: u64, record: &[u8]) -> io::Result<EntryOf<Types>> {
        let plain = self
            .seal
            .open_record(&entry_place(index), record)
            .map_err(other)?;
        codec::decode(&plain).map_err(other)
    }

    /// Entries of `range`, at least one if there is one, about `bytes` of them.
    fn read(&self, range: impl RangeBounds<u64>, bytes: usize) -> io::Result<Vec<EntryOf<Types>>> {
        let read = self.database.begin_read().map_err(other)?;
        let log = read.open_table(LOG).map_err(other)?;
        let mut entries = Vec::new();
        let mut size = 0;
        for row in log.range::<u64>(range).map_err(other)? {
            let (index, record) = row.map_err(other)?;
            entries.push(self.open_entry(index.value(), record.value())?);
            size += record.value().len();
            if size >= bytes {
                break;
            }
        }
        Ok(entries)
    }

    fn append(&self, entries: &[EntryOf<Types>]) -> io::Result<()> {
        let _timed = self.pace.begin();
        let write = self.database.begin_write().map_err(other)?;
        {
            let mut log = write.open_table(LOG).map_err(other)?;
            for entry in entries {
                let index = entry.index();
                let plain = codec::encode(entry).map_err(other)?;
                let record = self.seal.seal(&entry_place(index), &plain);
                log.insert(index, record.as_slice()).map_err(other)?;
            }
        }
        write.commit().map_err(other)
    }

    fn remove(
        &self,
        range: impl RangeBounds<u64>,
        purged: Option<LogIdOf<Types>>,
    ) -> io::Result<()> {
        let write = self.database.begin_write().map_err(other)?;
        {
            let mut log = write.open_table(LOG).map_err(other)?;
            log.retain_in::<u64, _>(range, |_, _| false)
                .map_err(other)?;
            if purged.is_some() {
                let record = self.record("purged", &purged)?;
                let mut marks = write.open_table(MARKS).map_err(other)?;
                marks.insert("purged", record.as_slice()).map_err(other)?;
            }
        }
        write.commit().map_err(other)
    }

    fn state(&self) -> io::Result<LogState<Types>> {
        let purged: Option<LogIdOf<Types>> = self.mark("purged")?.flatten();
        let read = self.database.begin_read().map_err(other)?;
        let log = read.open_table(LOG).map_err(other)?;
        let last = match log.last().map_err(other)? {
            Some((index, record)) => Some(self.open_entry(index.value(), record.value())?.log_id()),
            None => purged,
        };
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last,
        })
    }
}

fn owned(range: &impl RangeBounds<u64>) -> (Bound<u64>, Bound<u64>) {
    (range.start_bound().cloned(), range.end_bound().cloned())
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        let range = owned(&range);
        self.blocking(move |inner| inner.read(range, usize::MAX))
            .await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        self.blocking(move |inner| inner.read(start..end, READ_BYTES))
            .await
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        self.blocking(|inner| inner.mark("vote")).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        self.blocking(Inner::state).await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let vote = *vote;
        self.blocking(move |inner| inner.set_mark("vote", &vote, Durability::Immediate))
            .await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        // Not synced by itself: the next append syncs it, and an older mark is only a later start.
        self.blocking(move |inner| inner.set_mark("committed", &committed, Durability::None))
            .await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        self.blocking(|inner| Ok(inner.mark("committed")?.flatten()))
            .await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let result = self.blocking(move |inner| inner.append(&entries)).await;
        let answer = result
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))
            .copied();
        callback.io_completed(answer);
        result
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<Types>>) -> io::Result<()> {
        let from = last.map_or(0, |id| id.index + 1);
        self.blocking(move |inner| inner.remove(from.., None)).await
    }

    async fn purge(&mut self, upto: LogIdOf<Types>) -> io::Result<()> {
        self.blocking(move |inner| inner.remove(..=upto.index, Some(upto)))
            .await
    }
}
