//! How a store behaves: plain values with defaults.

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// After fsync: the commit survives a crash of the process and the loss of power.
    #[default]
    Synced,
    /// After the write: the commit survives a crash of the process, but power loss may take the newest ones back.
    Buffered,
}

/// Settings of an open store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// When a commit returns.
    pub durability: Durability,
    /// Bytes of rows that one page aims at, before encoding.
    pub page_bytes: usize,
    /// A transaction that stages more bytes than this goes round the log: its pages are written to the table's
    /// files at once, and a checkpoint is its commit.
    pub bulk_bytes: usize,
    /// The log is checkpointed once it holds this many bytes.
    pub checkpoint_log_bytes: u64,
    /// The smallest size of a log segment file; a larger commit gets a larger segment.
    pub log_segment_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Synced,
            page_bytes: 64 << 10,
            bulk_bytes: 16 << 20,
            checkpoint_log_bytes: 64 << 20,
            log_segment_bytes: 4 << 20,
        }
    }
}

/// The most bytes that one encoded page may have; a single row larger than this is refused.
pub(crate) const PAGE_BYTES_MAX: usize = 256 << 20;

/// Bytes of pages in Tonbo's memory before they are flushed to a file.
pub(crate) const FLUSH_BYTES: usize = 128 << 20;

/// The longest name of a table or watermark, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
