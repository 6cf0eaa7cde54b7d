//! How a store behaves: plain values with defaults.

use crate::version::Clock;

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After fsync: the commit survives a crash of the process and the loss of power.
    #[default]
    Synced,
    /// After the write: the commit survives a crash of the process, but power loss may take the newest ones back.
    Buffered,
}

/// Who compacts the tables of a store when that pays, which is looked at after each checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionMode {
    /// A thread of the store's. It ends with the store; [`Store::close`](crate::Store::close) lets it finish.
    #[default]
    Background,
    /// The thread whose commit has made the checkpoint, before the commit returns.
    AtOnce,
    /// Nobody but whoever calls [`Store::compact`](crate::Store::compact).
    Never,
}

/// Settings of an open store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// When a commit returns.
    pub durability: Durability,
    /// Bytes of rows that one page aims at, before encoding.
    pub page_bytes: usize,
    /// A transaction that stages more bytes than this goes round the log: its pages are written to the table's
    /// files, up to four times as many bytes or 64 MiB at once, and a checkpoint is its commit.
    pub bulk_bytes: usize,
    /// The log is checkpointed once it holds this many bytes, or as many as the tables if they are smaller (but not
    /// less than one segment).
    pub checkpoint_log_bytes: u64,
    /// The smallest size of a log segment file; a larger commit gets a larger segment.
    pub log_segment_bytes: u64,
    /// Stored bytes that a compaction sorts in memory at once; a larger table is compacted range by range of its keys.
    pub compact_bytes: u64,
    /// Who compacts tables when it pays.
    pub compaction: CompactionMode,
    /// Up to so many bytes in memory for the entries of each namespace of keyed state. One that has more is read from
    /// pages.
    pub state_memory_bytes: usize,
    /// Pages that queries have read lately are kept in memory, up to so many bytes.
    pub page_cache_bytes: usize,
    /// Where the time comes from: that of commits, and for what ends.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            page_bytes: 64 << 10,
            bulk_bytes: 16 << 20,
            checkpoint_log_bytes: 64 << 20,
            log_segment_bytes: 4 << 20,
            compact_bytes: 256 << 20,
            compaction: CompactionMode::default(),
            state_memory_bytes: 256 << 20,
            page_cache_bytes: 1 << 30,
            clock: Clock::default(),
        }
    }
}

/// The most bytes that one encoded page may have; a single row larger than this is refused.
pub(crate) const PAGE_BYTES_MAX: usize = 256 << 20;

/// Bytes of pages of a load or a compaction that wait in memory before they are written to a file.
pub(crate) const FLUSH_BYTES: usize = 64 << 20;

/// Bytes of pages of small commits that wait in memory, where no checkpoint comes before.
pub(crate) const WAITING_BYTES_MAX: usize = 256 << 20;

/// Fewer small pages than this are no reason for a compaction.
pub(crate) const SMALL_PAGES_MIN: usize = 256;

/// The longest name of a table or watermark, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
