use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, Date32Array, DictionaryArray, FixedSizeListArray, Float64Array, Int8Array,
    Int32Array, Int64Array, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
    UInt64Array,
};
use arrow_schema::{DataType, Field, Schema, UnionFields, UnionMode};
use darner_engine::{
    Dimension, DimensionBuilder, Encoding, ErrorKind, JoinSpec, LayoutKind, Matches, NO_MATCH,
    Scratch, StarJoin,
};

fn ids(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn rows(keys: &[i64], names: &[&str]) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
    RecordBatch::try_from_iter([("name", names), ("id", ids(keys))]).unwrap()
}

fn builder() -> DimensionBuilder {
    DimensionBuilder::new("dim", rows(&[], &[]).schema(), &["id".to_owned()]).unwrap()
}

fn content(dimension: &Dimension, batch_rows: usize) -> Vec<(i64, String)> {
    let mut content = Vec::new();
    for batch in dimension.batches(batch_rows) {
        let batch = batch.unwrap();
        let names = batch.column(0).as_string::<i32>().iter().flatten();
        let keys = batch
            .column(1)
            .as_primitive::<arrow_array::types::Int64Type>()
            .values();
        content.extend(keys.iter().copied().zip(names.map(str::to_owned)));
    }
    content
}

#[test]
fn dead_rows_cannot_be_seen() {
    let mut builder = builder().with_version(9);
    builder
        .upsert(rows(&[1, 2, 3, 2], &["a", "b", "c", "d"]))
        .unwrap();
    let keys = |keys: &[i32]| {
        let keys: ArrayRef = Arc::new(Int32Array::from(keys.to_vec()));
        RecordBatch::try_from_iter([("any", keys)]).unwrap()
    };
    builder.delete(keys(&[3, 77])).unwrap();
    builder.upsert(rows(&[4, 1], &["e", "f"])).unwrap();
    builder.delete(keys(&[4])).unwrap();
    builder.upsert(rows(&[4], &["g"])).unwrap();
    let dimension = builder.finish().unwrap();
    assert_eq!((dimension.num_rows(), dimension.version()), (3, 9));
    let expected = [
        (2, "d".to_owned()),
        (1, "f".to_owned()),
        (4, "g".to_owned()),
    ];
    for batch_rows in [0, 1, 2, 100] {
        assert_eq!(content(&dimension, batch_rows), expected);
    }
    assert!(!dimension.contains(&[ids(&[3])]).unwrap());
    assert!(dimension.contains(&[ids(&[4])]).unwrap());
    let row = dimension.get(&[ids(&[2])]).unwrap().unwrap();
    assert_eq!(row, rows(&[2], &["d"]));
    assert_eq!(dimension.get(&[ids(&[3])]).unwrap(), None);
    assert!(dimension.get(&[ids(&[3, 4])]).is_err());
    assert_eq!(dimension.get(2).unwrap().unwrap(), rows(&[2], &["d"]));
    assert!(dimension.contains(4_u64).unwrap() && !dimension.contains(u64::MAX).unwrap());
    assert!(!dimension.contains(3).unwrap());
    let error = dimension.contains("4").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("key=`id Int64`"), "{error}");

    let keys: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(4),
        None,
        Some(3),
        Some(2),
        Some(4),
    ]));
    let found = dimension.get_many(&[keys]).unwrap();
    let is_found: Vec<_> = found.is_found.iter().flatten().collect();
    assert_eq!(is_found, [true, false, false, true, true]);
    let names: Vec<_> = found.batch.column(0).as_string::<i32>().iter().collect();
    assert_eq!(names, [Some("g"), None, None, Some("d"), Some("g")]);
    assert!(dimension.index_bytes() > 0 && dimension.memory_bytes() > dimension.index_bytes());
}

/// Batches that share a dictionary are probed through what is remembered of it.
#[test]
fn a_remembered_dictionary_finds_what_plain_keys_find() {
    let built = |from: i64| {
        let names = (from..from + 600).map(|i| Some(format!("a key, number {i}")));
        let names: StringArray = names.collect();
        let rows = RecordBatch::try_from_iter([("name", Arc::new(names) as ArrayRef)]).unwrap();
        let mut builder = DimensionBuilder::new("d", rows.schema(), &["name".to_owned()]).unwrap();
        builder.upsert(rows).unwrap();
        builder.finish().unwrap()
    };
    let dimensions = [built(0), built(300)];
    let values = |from: i64| -> ArrayRef {
        let values =
            (from..from + 1_000).map(|i| (i % 10 != 0).then(|| format!("a key, number {i}")));
        Arc::new(values.collect::<StringArray>())
    };
    let dictionaries = [values(0), values(200)];
    let mut matches = Matches::default();
    let mut fresh = Matches::default();
    for round in 0..60 {
        // For some rounds the same dimension and dictionary, then another.
        let dimension = &dimensions[round / 15 % 2];
        let values = &dictionaries[round / 10 % 2];
        let keys = (0..300).map(|row| {
            let key = i32::try_from((row * 7 + round * 31) % 1_000).unwrap();
            (row % 13 != 0).then_some(key)
        });
        let keys: Int32Array = keys.collect();
        let dictionary = DictionaryArray::new(keys, Arc::clone(values));
        let plain = arrow_cast::cast(&dictionary, &DataType::Utf8).unwrap();
        dimension
            .probe(&[Arc::new(dictionary)], &mut matches)
            .unwrap();
        dimension.probe(&[plain], &mut fresh).unwrap();
        assert_eq!(matches.build_idx(), fresh.build_idx(), "round={round}");
        assert_eq!(
            matches.num_null_keys(),
            fresh.num_null_keys(),
            "round={round}"
        );
        assert!(matches.num_matched() > 0, "round={round}");
    }
}

/// Keys as arrays and as plain values find the same rows.
#[test]
fn lookups_by_value_equal_those_by_arrays() {
    let numbers = || (0..1_000_u64).map(|i| i * i * 7_919);
    let text = |i: u64| format!("{:>1$}", i, 1 + usize::try_from(i % 30).unwrap());
    let ints: Int64Array = numbers().map(|i| i64::try_from(i).unwrap() - 500).collect();
    let unsigned: UInt64Array = numbers().map(|i| u64::MAX - i).collect();
    let days = numbers().map(|i| i32::try_from(i % 9_000_000).unwrap());
    let dates = Date32Array::from_iter_values(days);
    let texts: StringArray = numbers().map(|i| Some(text(i))).collect();
    let keys: [ArrayRef; 4] = [
        Arc::new(ints.clone()),
        Arc::new(unsigned.clone()),
        Arc::new(dates.clone()),
        Arc::new(texts.clone()),
    ];
    for (column, keys) in keys.into_iter().enumerate() {
        let count = Arc::new(Int64Array::from_iter_values(0..1_000));
        let rows = RecordBatch::try_from_iter([("key", Arc::clone(&keys)), ("n", count)]).unwrap();
        let mut builder = DimensionBuilder::new("d", rows.schema(), &["key".to_owned()]).unwrap();
        // Half of the keys, so that the other half is missed.
        builder.upsert(rows.slice(0, 500)).unwrap();
        let dimension = builder.finish().unwrap();
        for row in 0..1_000 {
            let by_arrays = dimension.get(&[keys.slice(row, 1)]).unwrap();
            let by_value = match column {
                0 => dimension.get(ints.value(row)),
                1 => dimension.get(unsigned.value(row)),
                2 => dimension.get(dates.value(row)),
                _ => dimension.get(texts.value(row)),
            };
            assert_eq!(by_value.unwrap(), by_arrays, "column={column} row={row}");
        }
    }
}

#[test]
fn many_rows_of_a_large_dimension_equal_take() {
    // Large enough to be packed once as many rows were asked for as it has.
    const NUM_ROWS: i64 = 150_000;
    let names: StringArray = (0..NUM_ROWS).map(|i| Some(format!("name {i}"))).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..NUM_ROWS));
    let rows = RecordBatch::try_from_iter([("id", ids), ("name", Arc::new(names))]).unwrap();
    let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).unwrap();
    builder.upsert(rows.clone()).unwrap();
    let dimension = builder.finish().unwrap();
    let before = dimension.memory_bytes();
    for seed in 0..100 {
        let asked = (0..3_000_i64).map(|i| (i * 7_919 + seed * 104_729) % (2 * NUM_ROWS));
        let asked: Int64Array = asked.collect();
        let found = dimension.get_many(&[Arc::new(asked.clone())]).unwrap();
        let indices = asked.iter().map(|id| id.filter(|&id| id < NUM_ROWS));
        let indices: Int64Array = indices.collect();
        for (got, column) in found.batch.columns().iter().zip(rows.columns()) {
            let expected = arrow_select::take::take(column, &indices, None).unwrap();
            assert_eq!(got, &expected, "seed={seed}");
        }
    }
    assert!(dimension.memory_bytes() > before, "its rows are packed");
}

/// Beside the Arrow data: 4 bytes a row at most for keys without gaps, and never more than 24 for integers.
#[test]
fn indexes_of_integers_take_few_bytes_a_row() {
    const NUM_ROWS: i64 = 10_000;
    let cases = [1, 2, 5, 6, 7, 8, 32, 63, 64, 65, 1_000];
    let cases = cases.iter().flat_map(|gap| [(*gap, true), (*gap, false)]);
    for (gap, is_ascending) in cases {
        // No common stride, and a range of `gap` times as many places.
        let mut ids: Vec<i64> = (0..NUM_ROWS).map(|i| i * gap + i * 7919 % gap).collect();
        if !is_ascending {
            ids.reverse();
        }
        let rows = RecordBatch::try_from_iter([("id", self::ids(&ids))]).unwrap();
        let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).unwrap();
        builder.upsert(rows).unwrap();
        let dimension = builder.finish().unwrap();
        let most = match (gap, is_ascending) {
            (1, true) => 0,
            (1, false) => 4,
            // Two bits a place.
            (2..=16, true) => 5,
            (17..=64, true) => 17,
            _ => 24,
        };
        let num_bytes = dimension.index_bytes();
        let layout = dimension.layout();
        assert!(
            num_bytes <= 10_000 * most + 64,
            "{num_bytes} bytes, gap={gap} {is_ascending}, {layout}"
        );
        let matches = |keys: &[i64]| {
            let mut matches = Matches::default();
            dimension.probe(&[self::ids(keys)], &mut matches).unwrap();
            matches.build_idx().to_vec()
        };
        assert!(matches(&ids).into_iter().eq(0..10_000));
        let others: Vec<i64> = ids.iter().map(|id| id + 1).collect();
        let rows: BTreeMap<i64, u32> = ids.iter().copied().zip(0..).collect();
        let expected = others
            .iter()
            .map(|id| rows.get(id).copied().unwrap_or(NO_MATCH));
        assert!(
            matches(&others).into_iter().eq(expected),
            "gap={gap} {is_ascending}"
        );
    }
}

#[test]
fn views_of_many_batches_keep_nothing_but_their_bytes() {
    const KEYS_PER_BATCH: usize = 10;
    let names: Vec<String> = (0..1000)
        .map(|i| format!("a name of its own {i}"))
        .collect();
    let all = names.iter().cycle().take(40_000);
    let whole: ArrayRef = Arc::new(StringViewArray::from_iter_values(all));
    let schema = Schema::new(vec![
        Field::new("name", DataType::Utf8View, false),
        Field::new("id", DataType::Int64, false),
    ]);
    let schema = Arc::new(schema);
    let key = ["id".to_owned()];
    let mut builder = DimensionBuilder::new("dim", Arc::clone(&schema), &key).unwrap();
    for batch in 0..100 {
        let start = batch * KEYS_PER_BATCH;
        let keys: Vec<i64> = (start..start + KEYS_PER_BATCH)
            .map(|key| key as i64)
            .collect();
        let columns = vec![whole.slice(start, KEYS_PER_BATCH), ids(&keys)];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        builder.upsert(rows).unwrap();
    }
    let dimension = builder.finish().unwrap();
    assert!(
        dimension.memory_bytes() < 200_000,
        "{}",
        dimension.memory_bytes()
    );
    let facts: ArrayRef = ids(&[999, 0, 5000]);
    let mut matches = Matches::default();
    dimension.probe(&[facts], &mut matches).unwrap();
    let found = dimension.column_of(0, &matches).unwrap();
    let found = found.as_string_view();
    let texts: Vec<Option<&str>> = found.iter().collect();
    assert_eq!(texts, [Some(&*names[999]), Some(&*names[0]), None]);
    assert_eq!(found.data_buffers().len(), 1);
}

#[test]
fn no_rows_and_one_row_work() {
    let empty = builder().finish().unwrap();
    assert_eq!((empty.num_rows(), empty.batches(10).count()), (0, 0));
    assert_eq!(empty.layout().to_string(), "direct (no keys)");
    assert!(!empty.contains(&[ids(&[0])]).unwrap());
    assert_eq!(empty.get_many(&[ids(&[0, 1])]).unwrap().batch.num_rows(), 2);
    let mut builder = builder();
    builder.upsert(rows(&[i64::MIN], &["a"])).unwrap();
    let gone = RecordBatch::try_from_iter([("id", ids(&[i64::MIN]))]).unwrap();
    builder.delete(gone).unwrap();
    assert_eq!(builder.finish().unwrap().num_rows(), 0);
}

#[test]
fn only_key_columns_work() {
    let keys = RecordBatch::try_from_iter([("id", ids(&[5, 6]))]).unwrap();
    let mut builder = DimensionBuilder::new("d", keys.schema(), &["id".to_owned()]).unwrap();
    builder.upsert(keys.clone()).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    for text in ["d on id", "inner d on id", "semi d on id"] {
        let joins = vec![(JoinSpec::parse(text).unwrap(), Arc::clone(&dimension))];
        let join = StarJoin::new(&keys.schema(), None, joins, Encoding::Dictionary).unwrap();
        assert_eq!(
            join.join(&keys, &mut Scratch::default()).unwrap().batch,
            keys
        );
    }
}

#[test]
fn projection_keeps_keys_and_what_is_named() {
    let batch = RecordBatch::try_from_iter([
        ("a", ids(&[1, 2])),
        ("id", ids(&[3, 4])),
        ("b", ids(&[5, 6])),
    ])
    .unwrap();
    let builder = DimensionBuilder::new("d", batch.schema(), &["id".to_owned()]).unwrap();
    let mut builder = builder.with_projection(&["b".to_owned()]).unwrap();
    builder.upsert(batch).unwrap();
    let dimension = builder.finish().unwrap();
    let names: Vec<_> = dimension
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect();
    assert_eq!(names, ["id", "b"]);
    assert!(dimension.contains(&[ids(&[4])]).unwrap());
}

#[test]
fn null_keys_name_row_and_column() {
    let id = |values: Vec<Option<i64>>| {
        RecordBatch::try_from_iter_with_nullable([
            ("a", ids(&vec![1; values.len()]), true),
            ("b", Arc::new(Int64Array::from(values)) as ArrayRef, true),
        ])
        .unwrap()
    };
    let key = ["a".to_owned(), "b".to_owned()];
    let mut builder = DimensionBuilder::new("dim", id(vec![]).schema(), &key).unwrap();
    builder.upsert(id(vec![Some(1), Some(2)])).unwrap();
    let error = builder.upsert(id(vec![Some(3), None])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error
            .message()
            .contains("column=`b` row=`3` dimension=`dim`"),
        "{error}"
    );
    // The builder is as it was.
    assert_eq!(builder.finish().unwrap().num_rows(), 2);
}

#[test]
fn layouts_follow_the_keys() {
    let layout = |columns: Vec<ArrayRef>| {
        let names = ["a", "b"].into_iter().zip(columns);
        let batch = RecordBatch::try_from_iter(names).unwrap();
        let names: Vec<_> = batch
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        let mut builder = DimensionBuilder::new("d", batch.schema(), &names).unwrap();
        builder.upsert(batch).unwrap();
        builder.finish().unwrap().layout().clone()
    };
    assert_eq!(
        layout(vec![ids(&[3, 10, 4])]).to_string(),
        "direct (3 keys in a range of 8)"
    );
    assert_eq!(
        layout(vec![ids(&[0, 5000, 15_000])]).to_string(),
        "direct (3 keys in a range of 4 steps of 5000, in order)"
    );
    assert_eq!(layout(vec![ids(&[0, 1, 5000])]).kind(), LayoutKind::Hash);
    let text: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y"]));
    assert_eq!(layout(vec![Arc::clone(&text)]).kind(), LayoutKind::Bytes);
    assert_eq!(
        layout(vec![ids(&[1, 1]), text]).to_string(),
        "direct (2 keys of 2 columns in a range of 2, in order)"
    );
    assert_eq!(
        layout(vec![ids(&[0, i64::MAX]), ids(&[0, 1])]).to_string(),
        "row (2 columns)"
    );
}

/// Rows in the order of their keys, in pages, some deleted in between: found as in a map.
#[test]
fn keys_in_order_are_found() {
    type IsThere = fn(i64) -> bool;
    let spreads: [(i64, i64, IsThere); 6] = [
        (0, 1, |_| true),
        (-700, 1, |at| at % 64 != 3),
        (i64::MIN, 1, |at| at % 5 != 0),
        (i64::MAX - 4999 * 48, 48, |at| at % 3 == 0),
        (12, 3_600_000_000_000, |at| at < 2 || at % 61 == 0),
        (5, 1, |at| at == 4000),
    ];
    for (first, step, is_there) in spreads {
        let all: Vec<i64> = (0..5000).map(|at| first + at * step).collect();
        let there = (0..).zip(&all).filter(|(at, _)| is_there(*at));
        let there: Vec<i64> = there.map(|(_, key)| *key).collect();
        for (num_deleted, is_ascending) in [(0, true), (0, false), (3, true)] {
            let mut builder = builder();
            let mut map = BTreeMap::new();
            let mut pages: Vec<&[i64]> = there.chunks(700).collect();
            if !is_ascending {
                pages.reverse();
            }
            for page in pages {
                let names: Vec<String> = page.iter().map(ToString::to_string).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                builder.upsert(rows(page, &names)).unwrap();
                map.extend(page.iter().map(|key| (*key, key.to_string())));
                // Those of a later page are not there yet, and come to stay.
                let deleted = all.iter().step_by(500).copied().take(num_deleted);
                let deleted: Vec<i64> = deleted.collect();
                let keys = RecordBatch::try_from_iter([("id", ids(&deleted))]).unwrap();
                builder.delete(keys).unwrap();
                map.retain(|key, _| !deleted.contains(key));
            }
            let dimension = builder.finish().unwrap();
            let is_said = dimension.layout().reason().ends_with("in order");
            assert!(is_said || !is_ascending, "{}", dimension.layout());
            assert_eq!(dimension.layout().kind(), LayoutKind::Direct);
            let near = all.iter().map(|key| key.wrapping_add(1));
            let far = [i64::MIN, i64::MAX, 0, first.wrapping_sub(step)];
            let asked: Vec<i64> = all.iter().copied().chain(near).chain(far).collect();
            let found = dimension.get_many(&[ids(&asked)]).unwrap();
            let names = found.batch.column(0).as_string::<i32>();
            for (key, name) in asked.iter().zip(names) {
                assert_eq!(name, map.get(key).map(String::as_str), "{key} from {first}");
                assert_eq!(dimension.contains(*key).unwrap(), map.contains_key(key));
            }
        }
    }
}

/// Rows in the order of any of their keys' columns and then of the others: their numbers are in order too.
#[test]
fn rows_in_the_order_of_another_column_are_in_order() {
    type Key3 = (i64, String, i64);
    let num_rows = 3 * 40 * 5;
    let columns = |number: i64| (number / 200, format!("c{}", number / 5 % 40), number % 5);
    let by_text = |number: i64| (number / 5 % 3, format!("c{}", number / 15), number % 5);
    let by_last = |number: i64| (number / 40 % 3, format!("c{}", number % 40), number / 120);
    let at_random = |number: i64| columns(number * 7 % num_rows);
    let orders: [(&dyn Fn(i64) -> Key3, bool); 4] = [
        (&columns, true),
        (&by_text, true),
        (&by_last, true),
        (&at_random, false),
    ];
    let arrays = |keys: &[Key3]| -> [ArrayRef; 3] {
        let texts = keys.iter().map(|key| &key.1);
        [
            ids(&keys.iter().map(|key| key.0).collect::<Vec<_>>()),
            Arc::new(StringArray::from_iter_values(texts)),
            ids(&keys.iter().map(|key| key.2).collect::<Vec<_>>()),
        ]
    };
    let names = ["a", "b", "c"].map(str::to_owned);
    for (order, (key, is_ordered)) in orders.into_iter().enumerate() {
        let keys: Vec<Key3> = (0..num_rows).map(key).collect();
        let batch = RecordBatch::try_from_iter(names.iter().zip(arrays(&keys))).unwrap();
        let mut builder = DimensionBuilder::new("d", batch.schema(), &names).unwrap();
        // Where one page ends and the next begins, rows are in order too.
        builder.upsert(batch.slice(0, 250)).unwrap();
        builder.upsert(batch.slice(250, 350)).unwrap();
        let dimension = builder.finish().unwrap();
        let reason = dimension.layout().reason();
        assert_eq!(
            reason.ends_with("in order"),
            is_ordered,
            "{order}: {reason}"
        );
        let mut matches = Matches::default();
        dimension.probe(&arrays(&keys), &mut matches).unwrap();
        assert!(matches.build_idx().iter().copied().eq(0..600), "{order}");
        let others = keys.iter().zip(0..).map(|((a, b, c), at)| match at % 4 {
            0 => (a + 3, b.clone(), *c),
            1 => (a - 3, b.clone(), *c),
            2 => (*a, format!("{b}x"), *c),
            _ => (*a, b.clone(), c + 5),
        });
        let others: Vec<Key3> = others.collect();
        dimension.probe(&arrays(&others), &mut matches).unwrap();
        assert_eq!(matches.num_matched(), 0, "{order}");
    }
}

/// Payload columns of two pages, three and two rows, joined left in every encoding against what
/// stands in the pages.
fn check_payload(first: ArrayRef, second: ArrayRef) {
    let data_type = first.data_type().clone();
    let schema = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("p", data_type.clone(), true),
    ]));
    let mut builder = DimensionBuilder::new("d", Arc::clone(&schema), &["id".to_owned()]).unwrap();
    let page = |keys: &[i64], payload: &ArrayRef| {
        RecordBatch::try_new(Arc::clone(&schema), vec![ids(keys), Arc::clone(payload)]).unwrap()
    };
    builder.upsert(page(&[0, 1, 2], &first)).unwrap();
    builder.upsert(page(&[3, 1], &second)).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    assert_eq!(dimension.num_rows(), 4);
    let whole: Vec<_> = dimension.batches(3).map(Result::unwrap).collect();
    assert_eq!(whole[0].column(1).to_data().data_type(), &data_type);
    let facts = RecordBatch::try_from_iter([("id", ids(&[9, 1, 2, 3, 0, 1]))]).unwrap();
    for encoding in [Encoding::Plain, Encoding::View, Encoding::Dictionary] {
        let joins = vec![(JoinSpec::parse("d on id").unwrap(), Arc::clone(&dimension))];
        let join = StarJoin::new(&facts.schema(), None, joins, encoding).unwrap();
        let joined = join.join(&facts, &mut Scratch::default()).unwrap();
        let got = joined.batch.column(1);
        let text = |array: &ArrayRef, row: usize| {
            arrow_cast::display::array_value_to_string(array, row).unwrap()
        };
        for (row, (source, at)) in [
            (&second, 1),
            (&first, 2),
            (&second, 0),
            (&first, 0),
            (&second, 1),
        ]
        .iter()
        .enumerate()
        {
            assert_eq!(
                text(got, row + 1),
                text(source, *at),
                "{data_type}, {encoding:?}"
            );
        }
        assert!(
            data_type.is_null() || got.logical_nulls().unwrap().is_null(0),
            "{data_type}"
        );
    }
}

fn check_sliced(whole: ArrayRef) {
    assert_eq!(whole.len(), 6);
    check_payload(whole.slice(1, 3), whole.slice(4, 2));
}

#[test]
fn payload_of_any_type_is_carried() {
    let int: ArrayRef = Arc::new(Int64Array::from(vec![
        Some(1),
        None,
        Some(3),
        Some(4),
        Some(5),
        None,
    ]));
    let text = vec![
        Some("a"),
        Some("a string that is long"),
        None,
        Some("d"),
        Some(""),
        Some("f"),
    ];
    let text: ArrayRef = Arc::new(StringArray::from(text));
    for data_type in [
        DataType::Int64,
        DataType::Utf8,
        DataType::Date32,
        DataType::Boolean,
        DataType::Float16,
        DataType::Decimal256(50, 3),
        DataType::Timestamp(arrow_schema::TimeUnit::Second, None),
        DataType::Duration(arrow_schema::TimeUnit::Second),
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Int64)),
    ] {
        let narrow = arrow_cast::cast(&int, &DataType::Int32).unwrap();
        let from = if data_type == DataType::Date32 {
            &narrow
        } else {
            &int
        };
        check_sliced(arrow_cast::cast(from, &data_type).unwrap());
    }
    for data_type in [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::LargeBinary,
        DataType::BinaryView,
        DataType::Dictionary(Box::new(DataType::UInt8), Box::new(DataType::Utf8)),
    ] {
        check_sliced(arrow_cast::cast(&text, &data_type).unwrap());
    }
    check_sliced(Arc::new(NullArray::new(6)));
    let fields = vec![
        Field::new("i", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
    ];
    let arrays = vec![Arc::clone(&int), text];
    check_sliced(Arc::new(StructArray::new(fields.into(), arrays, None)));
    let mut list = ListBuilder::new(Int64Builder::new());
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    for n in 0..6_i64 {
        list.append_value((0..n).map(Some));
        map.keys().append_value(n.to_string());
        map.values().append_value(n);
        map.append(n != 2).unwrap();
    }
    let list: ArrayRef = Arc::new(list.finish());
    check_sliced(Arc::new(map.finish()));
    for data_type in [
        DataType::new_large_list(DataType::Int64, true),
        DataType::ListView(Arc::new(Field::new_list_field(DataType::Int64, true))),
    ] {
        check_sliced(arrow_cast::cast(&list, &data_type).unwrap());
    }
    check_sliced(list);
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    let values = ids(&(0..12).collect::<Vec<_>>());
    check_sliced(Arc::new(FixedSizeListArray::new(item, 2, values, None)));
}

#[test]
fn pages_with_different_dictionaries_are_joined() {
    let dictionary = |from: i64, values: i64| -> ArrayRef {
        let values: StringArray = (from..from + values).map(|n| Some(n.to_string())).collect();
        let keys = Int8Array::from(vec![Some(0), Some(99), None]);
        Arc::new(DictionaryArray::<Int8Type>::new(keys, Arc::new(values)))
    };
    check_payload(dictionary(0, 100), dictionary(0, 100).slice(0, 2));
    // 200 values together: more than the keys of the type can tell apart.
    check_payload(dictionary(0, 100), dictionary(500, 100).slice(0, 2));
}

#[test]
fn types_that_cannot_be_carried_are_refused() {
    let fields = UnionFields::try_new([0], [Field::new("a", DataType::Int64, true)]).unwrap();
    let union = DataType::Union(fields, UnionMode::Sparse);
    for data_type in [union.clone(), DataType::new_list(union, true)] {
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("u", data_type, true),
        ]);
        let error = DimensionBuilder::new("d", Arc::new(schema), &["id".to_owned()]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("column=`u`"), "{error}");
    }
}

#[test]
fn batches_of_other_types_are_refused() {
    let mut builder = builder();
    let float: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let batch = RecordBatch::try_from_iter([("name", float), ("id", ids(&[1]))]).unwrap();
    let error = builder.upsert(batch).unwrap_err();
    assert!(
        error
            .message()
            .contains("column=`name` got=`Float64` expected=`Utf8`"),
        "{error}"
    );
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let error = builder
        .delete(RecordBatch::try_from_iter([("id", keys)]).unwrap())
        .unwrap_err();
    assert!(error.message().contains("key_type=`Int64`"), "{error}");
}
