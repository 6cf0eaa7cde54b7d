//! What the benchmarks have in common: seeded data and facts about the machine.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};

/// Rows of a fact batch.
pub const BATCH_ROWS: usize = 64 * 1024;

/// A generator of numbers from a seed (`SplitMix64`).
pub struct Random(u64);

impl Random {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % bound
    }
}

/// A dimension with an int64 key and three payload columns: two strings and a float.
///
/// Keys are 0, `stride`, twice `stride`, ...: dense with a stride of 1.
///
/// # Panics
/// Never: the columns have one length.
pub fn dimension(num_rows: usize, stride: i64) -> RecordBatch {
    let ids = || 0..i64::try_from(num_rows).unwrap_or(i64::MAX);
    let columns: [(&str, ArrayRef); 4] = [
        (
            "id",
            Arc::new(ids().map(|id| id * stride).collect::<Int64Array>()),
        ),
        (
            "name",
            Arc::new(
                ids()
                    .map(|id| Some(format!("name of {id}")))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "group",
            Arc::new(
                ids()
                    .map(|id| Some(format!("g{}", id % 97)))
                    .collect::<StringArray>(),
            ),
        ),
        (
            "weight",
            Arc::new(ids().map(half).collect::<Float64Array>()),
        ),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

/// Facts with an int64 key, an int64 and a float. Keys are uniform over `num_keys` multiples of `stride`.
///
/// # Panics
/// Never: the columns have one length.
pub fn facts(num_rows: usize, num_keys: u64, stride: i64, seed: u64) -> Vec<RecordBatch> {
    let mut random = Random::new(seed);
    let mut batches = Vec::new();
    for start in (0..num_rows).step_by(BATCH_ROWS) {
        let rows = BATCH_ROWS.min(num_rows - start);
        let keys: Int64Array = (0..rows)
            .map(|_| i64::try_from(random.below(num_keys)).unwrap_or(i64::MAX) * stride)
            .collect();
        let amounts: Float64Array = keys.values().iter().map(|key| half(*key)).collect();
        let columns: [(&str, ArrayRef); 3] = [
            ("key", Arc::new(keys.clone())),
            ("quantity", Arc::new(keys)),
            ("amount", Arc::new(amounts)),
        ];
        batches.push(RecordBatch::try_from_iter(columns).expect("columns of one length"));
    }
    batches
}

/// What `weight` is for an id.
pub fn half(id: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "ids of benchmarks are small")]
    let half = id as f64 / 2.0;
    half
}

/// The machine, in one line, for the head of a report.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    let memory = read("/proc/meminfo");
    let memory = memory
        .lines()
        .next()
        .unwrap_or_default()
        .replace("MemTotal:", "");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} cores, {}",
        model.trim_start_matches([' ', '\t', ':']),
        memory.trim()
    )
}
