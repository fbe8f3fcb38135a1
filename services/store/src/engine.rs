//! RocksDB: how it is opened, and typed access to checked values. The only file that sets its options.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, Direction,
    FlushOptions, IteratorMode, LogLevel, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions,
};

use tokio::sync::oneshot;

use crate::error::Error;
use crate::schema::{self, Corruption, Revision};
use store_api::mvccpb::KeyValue;

const MIB: usize = 1 << 20;

/// The open database. Clones share it; it closes with the last one.
#[derive(Clone)]
pub struct Engine {
    open: Arc<Open>,
}

/// Fields drop in this order: the signal comes after the database is closed.
struct Open {
    db: DB,
    _closed: oneshot::Sender<()>,
}

/// Resolves when a database is closed.
pub struct Closed(oneshot::Receiver<()>);

impl Closed {
    /// Waits until nothing uses the database any more.
    pub async fn wait(self) {
        // The sender is never used, only dropped.
        let _ = self.0.await;
    }
}

impl Engine {
    /// Opens or creates the database in `folder`.
    ///
    /// # Errors
    /// The folder is unusable, in use by another process, damaged, or of an unknown layout.
    pub fn open(folder: &Path) -> Result<(Self, Closed), Error> {
        // One small cache for all families: hot objects live in the clients' watch caches, not here.
        let cache = Cache::new_lru_cache(8 * MIB);
        let families = schema::FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family_options(name, &cache)));
        let db = DB::open_cf_descriptors(&database_options(), folder, families)?;
        let (sender, closed) = oneshot::channel();
        let engine = Engine { open: Arc::new(Open { db, _closed: sender }) };
        engine.check_format()?;
        Ok((engine, Closed(closed)))
    }

    fn check_format(&self) -> Result<(), Error> {
        match self.get(schema::STATE, schema::state::FORMAT)? {
            None => {
                let mut batch = WriteBatch::default();
                self.put(&mut batch, schema::STATE, schema::state::FORMAT, &[schema::FORMAT]);
                self.write(batch)?;
                self.sync()
            }
            Some(format) if *format == [schema::FORMAT] => Ok(()),
            Some(format) => {
                Err(Error::Layout(format!("layout {format:?} is unknown; this version reads {}", schema::FORMAT)))
            }
        }
    }

    #[expect(clippy::expect_used, reason = "every family in schema::FAMILIES was opened, and none is ever dropped")]
    fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.open.db.cf_handle(name).expect("an open column family")
    }

    /// Adds a checked value to a batch.
    pub fn put(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8], payload: &[u8]) {
        self.put_sealed(batch, family, key, &schema::seal(family, key, payload));
    }

    /// Adds a value that already carries its checksum.
    pub fn put_sealed(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8], value: &[u8]) {
        batch.put_cf(&self.family(family), key, value);
    }

    /// Adds a removal.
    pub fn delete(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8]) {
        batch.delete_cf(&self.family(family), key);
    }

    /// Adds the removal of all keys from `from` up to, not including, `to`.
    pub fn delete_range(&self, batch: &mut WriteBatch, family: &'static str, from: &[u8], to: &[u8]) {
        batch.delete_range_cf(&self.family(family), from, to);
    }

    /// Reads and verifies one value.
    ///
    /// # Errors
    /// The disk failed or the value is damaged.
    pub fn get(&self, family: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self.open.db.get_cf(&self.family(family), key)? {
            None => Ok(None),
            Some(value) => Ok(Some(schema::unseal(family, key, &value)?.to_vec())),
        }
    }

    /// Writes a batch to the memory tables only. It becomes durable with their next flush, together with everything before
    /// it and never in part; what a crash takes away, the log of consensus brings back.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.open.db.write_opt(batch, &options)?)
    }

    /// Flushes the memory tables: returns when everything written before is on the disk. Writes may go on meanwhile.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn sync(&self) -> Result<(), Error> {
        let families = schema::FAMILIES.map(|name| self.family(name));
        let families: Vec<_> = families.iter().collect();
        Ok(self.open.db.flush_cfs_opt(&families, &FlushOptions::default())?)
    }

    /// Calls `visit` with every key and raw value from `from` on, until it returns `false` or the family ends.
    ///
    /// # Errors
    /// The disk failed, or `visit`'s own error.
    pub fn scan<F>(&self, family: &'static str, from: &[u8], mut visit: F) -> Result<(), Error>
    where
        F: FnMut(&[u8], Box<[u8]>) -> Result<bool, Error>,
    {
        let mut options = ReadOptions::default();
        // A pass over history must not push the useful blocks out of the small cache.
        options.fill_cache(false);
        let mode = IteratorMode::From(from, Direction::Forward);
        let mut last: Box<[u8]> = from.into();
        for item in self.open.db.iterator_cf_opt(&self.family(family), options, mode) {
            let (key, value) = item.map_err(|e| damaged(family, &last, e))?;
            if !visit(&key, value)? {
                break;
            }
            last = key;
        }
        Ok(())
    }

    /// All families as of now, for reading them one after the other.
    pub fn view(&self) -> View<'_> {
        View { engine: self, snapshot: self.open.db.snapshot() }
    }

    /// Adds a sorted table file to a family.
    ///
    /// # Errors
    /// The file is damaged, or the disk failed or is full.
    pub fn ingest(
        &self,
        family: &'static str,
        file: &Path,
        options: &rocksdb::IngestExternalFileOptions,
    ) -> Result<(), Error> {
        Ok(self.open.db.ingest_external_file_cf_opts(&self.family(family), options, vec![file])?)
    }

    /// A view that later writes and removals do not change.
    pub fn snapshot(&self) -> Records<'_> {
        Records { snapshot: self.open.db.snapshot(), family: self.family(schema::MVCC), tier: ReadTier::All }
    }

    /// The same, but it answers [`Error::NotInMemory`] instead of waiting for the disk.
    pub fn snapshot_in_memory(&self) -> Records<'_> {
        Records { tier: ReadTier::BlockCache, ..self.snapshot() }
    }

    /// Reads the newest stored record of a revision.
    ///
    /// # Errors
    /// It is missing or damaged, or the disk failed.
    pub fn record(&self, revision: Revision) -> Result<KeyValue, Error> {
        found(revision, self.open.db.get_cf(&self.family(schema::MVCC), revision.key())?)
    }

    /// Bytes of table files and memory tables.
    pub fn size(&self) -> u64 {
        let property = |name: &str| -> u64 {
            let of =
                |family| self.open.db.property_int_value_cf(&self.family(family), name).ok().flatten().unwrap_or(0);
            schema::FAMILIES.iter().map(|f| of(*f)).sum()
        };
        property("rocksdb.total-sst-files-size") + property("rocksdb.cur-size-all-mem-tables")
    }

    /// Rewrites all tables so that removed records give their space back.
    pub fn defragment(&self) {
        for family in schema::FAMILIES {
            self.open.db.compact_range_cf(&self.family(family), None::<&[u8]>, None::<&[u8]>);
        }
    }

    /// Copies what a power cut would leave: what was flushed.
    #[cfg(test)]
    pub(crate) fn copy_durable(&self, folder: &Path) -> Result<(), Error> {
        // At so much of its own log, which it does not write, RocksDB would flush first.
        const NEVER: u64 = u64::MAX;
        Ok(rocksdb::checkpoint::Checkpoint::new(&self.open.db)?.create_checkpoint_with_log_size(folder, NEVER)?)
    }

    /// Creates a consistent copy in `folder`, which must not exist; unchanged table files are hard links.
    ///
    /// # Errors
    /// The disk failed or is full.
    pub fn checkpoint(&self, folder: &Path) -> Result<(), Error> {
        Ok(rocksdb::checkpoint::Checkpoint::new(&self.open.db)?.create_checkpoint(folder)?)
    }
}

/// RocksDB's own checksum failed: name the place as closely as an iterator allows.
fn damaged(family: &'static str, last: &[u8], error: rocksdb::Error) -> Error {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            Corruption::new(family, last, format!("at or after this key: {error}")).into()
        }
        _ => error.into(),
    }
}

fn found(revision: Revision, value: Option<Vec<u8>>) -> Result<KeyValue, Error> {
    match value {
        Some(value) => Ok(schema::decode_record(revision, value)?.1),
        None => Err(Corruption::new(schema::MVCC, &revision.key(), "missing").into()),
    }
}

/// All families as of one moment.
pub struct View<'e> {
    engine: &'e Engine,
    snapshot: rocksdb::SnapshotWithThreadMode<'e, DB>,
}

impl View<'_> {
    /// Calls `visit` with every key and raw value of a family, until it returns `false` or the family ends.
    ///
    /// # Errors
    /// The disk failed, or `visit`'s own error.
    pub fn scan<F>(&self, family: &'static str, mut visit: F) -> Result<(), Error>
    where
        F: FnMut(&[u8], Box<[u8]>) -> Result<bool, Error>,
    {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        let mut last: Box<[u8]> = Box::default();
        for item in self.snapshot.iterator_cf_opt(&self.engine.family(family), options, IteratorMode::Start) {
            let (key, value) = item.map_err(|e| damaged(family, &last, e))?;
            if !visit(&key, value)? {
                break;
            }
            last = key;
        }
        Ok(())
    }
}

/// Key-value records as of one moment.
pub struct Records<'e> {
    snapshot: rocksdb::SnapshotWithThreadMode<'e, DB>,
    family: Arc<BoundColumnFamily<'e>>,
    tier: ReadTier,
}

impl crate::mvcc::Load for Records<'_> {
    fn load(&self, revision: Revision) -> Result<KeyValue, Error> {
        let mut options = ReadOptions::default();
        options.set_read_tier(self.tier);
        match self.snapshot.get_cf_opt(&self.family, revision.key(), options) {
            Err(error) if error.kind() == rocksdb::ErrorKind::Incomplete => Err(Error::NotInMemory),
            // Only who looks at everything can say that something is missing.
            Ok(None) if self.tier != ReadTier::All => Err(Error::NotInMemory),
            value => found(revision, value?),
        }
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // There is no write-ahead log here (see `Engine::write`), so the families must reach the disk together.
    options.set_atomic_flush(true);
    options.set_db_write_buffer_size(16 * MIB);
    // One flush and one compaction thread: a control plane writes little, and memory matters more.
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_log_level(LogLevel::Warn);
    options
}

fn family_options(name: &str, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(match name {
        schema::MVCC => 4 * MIB,
        _ => MIB / 4,
    });
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(16 * MIB as u64);
    options.set_max_bytes_for_level_base(64 * MIB as u64);
    options
}
