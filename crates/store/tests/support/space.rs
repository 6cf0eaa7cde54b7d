//! The space that a table takes when the same rows are updated again and again.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use darner_store::{CompactionMode, Store, StoreOptions, TableSpec};

/// Updates all rows of a table so often, and checks that its files take less than four times the space of the rows.
///
/// After each round where that is sure to hold; at the end where a thread compacts meanwhile. Returns the two sizes in
/// bytes: of the store at the end, and of the rows loaded once.
pub(crate) fn update_again_and_again(
    options: &StoreOptions,
    num_rows: i64,
    num_rounds: i64,
) -> (u64, u64) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
    ]));
    let rows = |round: i64| {
        let names = (0..num_rows).map(|i| Some(format!("name {i} of round {round:05}")));
        let columns: Vec<ArrayRef> = vec![
            Arc::new((0..num_rows).collect::<Int64Array>()),
            Arc::new(names.collect::<StringArray>()),
            Arc::new(
                (0..num_rows)
                    .map(|i| (i + round) as f64)
                    .collect::<Float64Array>(),
            ),
        ];
        RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let mut transaction = store.begin().unwrap();
    let spec = TableSpec::new(&schema, &["id"]).unwrap();
    transaction.create_table("prices", spec).unwrap();
    transaction.upsert("prices", &rows(0)).unwrap();
    transaction.commit().unwrap();
    store.checkpoint().unwrap();
    let live_bytes = store.disk_bytes().unwrap();
    let assert_small = |store: &Store| {
        let (num_bytes, version) = (store.disk_bytes().unwrap(), store.version());
        assert!(
            num_bytes < 4 * live_bytes,
            "version {version}: num_bytes={num_bytes} live_bytes={live_bytes}"
        );
        num_bytes
    };
    for round in 1..=num_rounds {
        let mut transaction = store.begin().unwrap();
        transaction.upsert("prices", &rows(round)).unwrap();
        transaction.commit().unwrap();
        if options.compaction == CompactionMode::AtOnce {
            assert_small(&store);
        }
    }
    let table = store.table("prices").unwrap();
    assert_eq!(table.num_rows().unwrap(), num_rows as u64);
    assert!(table.history().unwrap().len() as i64 > num_rounds.min(1000));
    drop(table);
    store.close().unwrap();
    (
        assert_small(&Store::open_read_only(dir.path()).unwrap()),
        live_bytes,
    )
}
