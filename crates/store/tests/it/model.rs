//! Random work on a store, compared with a `BTreeMap` after every step.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, cast::AsArray, types::Int64Type,
};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_store::{Durability, Store, StoreOptions, TableSnapshot, TableSpec};

use crate::random::Random;

type Table = BTreeMap<(i64, String), i64>;
type Model = BTreeMap<String, Table>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("payload", DataType::Int64, true),
        Field::new("region", DataType::Utf8, false),
    ]))
}

fn spec() -> TableSpec {
    TableSpec::new(&schema(), &["id", "region"]).unwrap()
}

fn rows(rows: &[(i64, String, i64)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.1.clone()))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn keys(keys: &[(i64, String)]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys.iter().map(|key| key.0).collect::<Int64Array>()),
        Arc::new(
            keys.iter()
                .map(|key| Some(key.1.clone()))
                .collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(Arc::clone(spec().key_schema()), columns).unwrap()
}

fn read(table: &TableSnapshot) -> BTreeMap<(i64, String), i64> {
    let mut found = BTreeMap::new();
    for batch in table.rows(None).unwrap() {
        let batch = batch.unwrap();
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let payloads = batch.column(1).as_primitive::<Int64Type>();
        let regions = batch.column(2).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let key = (ids.value(row), regions.value(row).to_owned());
            assert!(
                found.insert(key, payloads.value(row)).is_none(),
                "a key came twice"
            );
        }
    }
    assert_eq!(table.num_rows().unwrap(), found.len() as u64);
    found
}

fn check(store: &Store, model: &Model) {
    assert_eq!(
        store.table_names(),
        model.keys().cloned().collect::<Vec<_>>()
    );
    for (name, expected) in model {
        assert_eq!(&read(&store.table(name).unwrap()), expected, "table {name}");
    }
    let watermark = store.watermark("steps").map(|watermark| watermark.version);
    assert_eq!(watermark.unwrap_or_default(), store.version());
}

fn options(random: &mut Random) -> StoreOptions {
    StoreOptions {
        durability: if random.below(2) == 0 {
            Durability::Synced
        } else {
            Durability::Buffered
        },
        page_bytes: [64, 1000, 64 << 10][random.below(3) as usize],
        bulk_bytes: [0, 3000, 16 << 20][random.below(3) as usize],
        checkpoint_log_bytes: [0, 20_000, 64 << 20][random.below(3) as usize],
        log_segment_bytes: [4096, 1 << 16][random.below(2) as usize],
    }
}

/// One random transaction, in the store and in the model. It may be dropped instead of committed.
fn transact(store: &Store, model: &mut Model, random: &mut Random, step: u64) {
    let mut transaction = store.begin().unwrap();
    let mut after = model.clone();
    for _ in 0..=random.below(3) {
        let name = format!("t{}", random.below(3));
        if !after.contains_key(&name) {
            transaction.create_table(&name, spec()).unwrap();
            after.insert(name.clone(), BTreeMap::new());
        }
        let Some(table) = after.get_mut(&name) else {
            unreachable!()
        };
        let mut key = || {
            (
                random.below(60) as i64,
                ["east", "west", ""][random.below(3) as usize].to_owned(),
            )
        };
        match step % 11 {
            0 => {
                transaction.drop_table(&name).unwrap();
                after.remove(&name);
            }
            1 | 2 => {
                transaction.replace(&name, spec()).unwrap();
                transaction.declare_distinct(&name).unwrap();
                let distinct: BTreeMap<_, _> = (0..30).map(|i| (key(), i)).collect();
                let new: Vec<_> = distinct
                    .iter()
                    .map(|(k, v)| (k.0, k.1.clone(), *v))
                    .collect();
                transaction.upsert(&name, &rows(&new)).unwrap();
                *table = distinct;
            }
            3..6 => {
                let gone: Vec<_> = (0..20).map(|_| key()).collect();
                transaction.delete(&name, &keys(&gone)).unwrap();
                for key in gone {
                    table.remove(&key);
                }
            }
            _ => {
                let new: Vec<_> = (0..25)
                    .map(|i| {
                        let key = key();
                        (key.0, key.1, (step * 100 + i) as i64)
                    })
                    .collect();
                transaction.upsert(&name, &rows(&new)).unwrap();
                for (id, region, payload) in new {
                    table.insert((id, region), payload);
                }
            }
        }
    }
    if random.below(5) > 0 {
        transaction
            .set_watermark("steps", step.to_string().as_bytes())
            .unwrap();
        let version = transaction.commit().unwrap();
        assert_eq!(store.version(), version);
        assert_eq!(
            store.watermark("steps").unwrap().value,
            step.to_string().as_bytes()
        );
        *model = after;
    }
}

fn run(dir: &Path, seed: u64) {
    let mut random = Random::new(seed);
    let mut model = Model::new();
    let mut store = Store::open(dir, options(&mut random)).unwrap();
    let mut old: Vec<(TableSnapshot, Table)> = Vec::new();
    for step in 0..120 {
        match random.below(12) {
            0 => store.checkpoint().unwrap(),
            1 => {
                // Drop: as after a crash of the process. Close: as after an orderly end.
                if random.below(2) == 0 {
                    drop(store);
                } else {
                    store.close().unwrap();
                }
                store = Store::open(dir, options(&mut random)).unwrap();
            }
            2 => {
                let reader = Store::open_read_only(dir).unwrap();
                check(&reader, &model);
                assert!(reader.begin().is_err());
                old.extend(
                    reader
                        .tables()
                        .into_iter()
                        .map(|t| (t.clone(), model[t.name()].clone())),
                );
            }
            3 => old.extend(
                store
                    .tables()
                    .into_iter()
                    .map(|t| (t.clone(), model[t.name()].clone())),
            ),
            _ => transact(&store, &mut model, &mut random, step),
        }
        check(&store, &model);
        // Snapshots stay as they were, whatever happened to the store, and after it was closed.
        if old.len() > 6 {
            for (table, expected) in old.drain(..) {
                assert_eq!(read(&table), expected, "old snapshot of {}", table.name());
            }
        }
    }
}

#[test]
fn random_work_equals_a_btree_map() {
    let first = Random::seed(100);
    for seed in first..first + 12 {
        let dir = tempfile::tempdir().unwrap();
        let result = std::panic::catch_unwind(|| run(dir.path(), seed));
        assert!(result.is_ok(), "failed with DARNER_SEED={seed}");
    }
}
