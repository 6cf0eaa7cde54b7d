//! Every Arrow type goes in as a payload column and comes back, through the log, through a checkpoint, and cut from a
//! larger batch.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
    DictionaryArray, DurationMicrosecondArray, FixedSizeBinaryArray, FixedSizeListArray,
    Float16Array, Float32Array, Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    LargeStringArray, ListArray, MapArray, NullArray, RecordBatch, RunArray, StringArray,
    StringViewArray, StructArray, Time64NanosecondArray, TimestampMicrosecondArray, UInt8Array,
    UInt64Array,
    builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder, StringViewBuilder},
    types::{Int8Type, Int32Type, IntervalMonthDayNano},
};
use arrow_buffer::{NullBuffer, i256};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use darner_store::{Store, StoreOptions, TableSpec};

const NUM_ROWS: usize = 500;

fn text(i: usize) -> Option<String> {
    (!i.is_multiple_of(5)).then(|| {
        format!(
            "value {i} {}",
            "long enough to leave the view".repeat(i % 3)
        )
    })
}

fn columns() -> Vec<(&'static str, ArrayRef)> {
    let n = 0..NUM_ROWS;
    let some = |i: usize| i % 3 != 1;
    let mut list = ListBuilder::new(Int32Builder::new());
    let mut views = ListBuilder::new(StringViewBuilder::new());
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringViewBuilder::new());
    for i in n.clone() {
        for j in 0..i % 4 {
            list.values().append_option(some(j).then_some(j as i32));
            views.values().append_option(text(i + j));
            map.keys().append_value(format!("key {j}"));
            map.values().append_option(text(i * j));
        }
        list.append(some(i));
        views.append(some(i));
        map.append(some(i)).unwrap();
    }
    let map: MapArray = map.finish();
    let list: ListArray = list.finish();
    let dictionary: DictionaryArray<Int8Type> = n
        .clone()
        .map(|i| some(i).then(|| ["a", "b", "c"][i % 3]))
        .collect();
    let structs = StructArray::new(
        vec![
            Field::new("text", DataType::Utf8View, true),
            Field::new("code", dictionary.data_type().clone(), true),
            Field::new("list", list.data_type().clone(), true),
        ]
        .into(),
        vec![
            Arc::new(n.clone().map(text).collect::<StringViewArray>()),
            Arc::new(dictionary.clone()),
            Arc::new(list.clone()),
        ],
        Some(n.clone().map(some).collect::<NullBuffer>()),
    );
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        n.clone()
            .map(|i| some(i).then(|| vec![Some(i as i32), None])),
        2,
    );
    let runs: RunArray<Int32Type> = n.clone().map(|i| some(i / 50).then_some("run")).collect();
    let interval = |i| IntervalMonthDayNano::new(i as i32, 2, i as i64);
    let int = |i: usize| some(i).then_some(i as i64);
    vec![
        (
            "id",
            Arc::new(Int64Array::from_iter_values(0..NUM_ROWS as i64)),
        ),
        ("null", Arc::new(NullArray::new(NUM_ROWS))),
        (
            "bool",
            Arc::new(
                n.clone()
                    .map(|i| some(i).then_some(i % 2 == 0))
                    .collect::<BooleanArray>(),
            ),
        ),
        (
            "u8",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| i as u8))
                    .collect::<UInt8Array>(),
            ),
        ),
        (
            "i32",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| -i as i32))
                    .collect::<Int32Array>(),
            ),
        ),
        (
            "u64",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| u64::MAX - i as u64))
                    .collect::<UInt64Array>(),
            ),
        ),
        (
            "f16",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| half::f16::from_f64(i as f64)))
                    .collect::<Float16Array>(),
            ),
        ),
        (
            "f32",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| i as f32 / 3.0))
                    .collect::<Float32Array>(),
            ),
        ),
        (
            "f64",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| i as f64 / 3.0))
                    .collect::<Float64Array>(),
            ),
        ),
        (
            "utf8",
            Arc::new(n.clone().map(text).collect::<StringArray>()),
        ),
        (
            "large",
            Arc::new(n.clone().map(text).collect::<LargeStringArray>()),
        ),
        (
            "view",
            Arc::new(n.clone().map(text).collect::<StringViewArray>()),
        ),
        (
            "binary",
            Arc::new(
                n.clone()
                    .map(|i| text(i).map(String::into_bytes))
                    .collect::<BinaryArray>(),
            ),
        ),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter(n.clone().map(|i| (i as u32).to_le_bytes()))
                    .unwrap(),
            ),
        ),
        (
            "date",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(|i| i as i32))
                    .collect::<Date32Array>(),
            ),
        ),
        (
            "time",
            Arc::new(n.clone().map(int).collect::<Time64NanosecondArray>()),
        ),
        (
            "timestamp",
            Arc::new(
                n.clone()
                    .map(int)
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("Europe/Berlin"),
            ),
        ),
        (
            "duration",
            Arc::new(n.clone().map(int).collect::<DurationMicrosecondArray>()),
        ),
        (
            "interval",
            Arc::new(
                n.clone()
                    .map(|i| some(i).then(|| interval(i)))
                    .collect::<IntervalMonthDayNanoArray>(),
            ),
        ),
        (
            "d128",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(i128::from))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ),
        (
            "d256",
            Arc::new(
                n.clone()
                    .map(|i| int(i).map(i256::from))
                    .collect::<Decimal256Array>()
                    .with_precision_and_scale(50, 3)
                    .unwrap(),
            ),
        ),
        ("dictionary", Arc::new(dictionary)),
        ("list", Arc::new(list)),
        ("list of views", Arc::new(views.finish())),
        ("fixed list", Arc::new(fixed)),
        ("map", Arc::new(map)),
        ("struct", Arc::new(structs)),
        ("runs", Arc::new(runs)),
    ]
}

#[test]
fn every_type_comes_back() {
    let columns = columns();
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), *name != "id"))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns: Vec<ArrayRef> = columns.into_iter().map(|(_, column)| column).collect();
    let whole = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    // A part from the middle, so that no offset is zero.
    let expected = whole.slice(37, 400);
    for (bulk_bytes, page_bytes) in [(0, 2000), (16 << 20, 2000), (16 << 20, 1 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            bulk_bytes,
            page_bytes,
            ..StoreOptions::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let mut transaction = store.begin().unwrap();
        transaction
            .create_table("all", TableSpec::new(&schema, &["id"]).unwrap())
            .unwrap();
        transaction.upsert("all", &expected).unwrap();
        transaction.commit().unwrap();
        let check = |store: &Store| {
            let table = store.table("all").unwrap();
            let rows: Vec<_> = table.rows(None).unwrap().map(Result::unwrap).collect();
            let found = concat_batches(table.schema(), &rows).unwrap();
            assert_eq!(found.num_rows(), expected.num_rows());
            for ((found, expected), field) in found
                .columns()
                .iter()
                .zip(expected.columns())
                .zip(schema.fields())
            {
                assert_eq!(found, expected, "{}", field.name());
            }
            // Pages hold their own rows only, not the buffers of the whole batch.
            assert!(table.num_bytes() < 2_500_000, "{} bytes", table.num_bytes());
            let names = table.rows(Some(&[9])).unwrap().next().unwrap().unwrap();
            assert_eq!(names.schema().field(0).name(), "utf8");
        };
        check(&store);
        drop(store);
        let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
        check(&store);
        store.checkpoint().unwrap();
        check(&Store::open_read_only(dir.path()).unwrap());
    }
}
