use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_schema::{DataType, Field, FieldRef};
use darner_engine::{OnDuplicate, UniqueKeys, UniqueRows};

type Batch<'a> = (&'a [Option<i64>], &'a [Option<&'a str>]);

fn load(policy: OnDuplicate, batches: &[Batch<'_>]) -> UniqueRows {
    let fields: Vec<FieldRef> = vec![
        Arc::new(Field::new("id", DataType::Int64, true)),
        Arc::new(Field::new("name", DataType::Utf8, true)),
    ];
    let mut keys = UniqueKeys::new("t", &fields, policy).unwrap();
    for (ids, names) in batches {
        let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        keys.push(&[ids, names]).unwrap();
    }
    keys.finish().unwrap()
}

fn selections(rows: &UniqueRows) -> Vec<Option<Vec<u32>>> {
    rows.selections
        .iter()
        .map(|s| s.as_ref().map(|s| s.values().to_vec()))
        .collect()
}

#[test]
fn duplicates_are_found_across_batches() {
    let a = (
        &[Some(1), Some(2), Some(3)][..],
        &[Some("a"), Some("b"), Some("c")][..],
    );
    let b = (&[Some(2), Some(4)][..], &[Some("x"), Some("d")][..]);
    let c = (
        &[Some(4), Some(2), Some(4)][..],
        &[Some("d"), Some("b"), Some("d")][..],
    );
    let batches = [a, b, c];

    let rows = load(OnDuplicate::Error, &batches);
    assert_eq!(selections(&rows), [None, None, None]);
    let duplicates = rows.duplicates.unwrap();
    assert_eq!(duplicates.num_duplicate_rows, 3);
    assert_eq!(
        (duplicates.first.key.as_str(), duplicates.first.rows),
        ("4, d", [4, 5])
    );

    let rows = load(OnDuplicate::First, &batches);
    assert_eq!(selections(&rows), [None, None, Some(vec![])]);
    let rows = load(OnDuplicate::Last, &batches);
    assert_eq!(
        selections(&rows),
        [Some(vec![0, 2]), Some(vec![0]), Some(vec![1, 2])]
    );

    let rows = load(OnDuplicate::Error, &[a, b]);
    assert_eq!((rows.duplicates, rows.null_key), (None, None));
}

#[test]
fn null_keys_are_reported_and_left_out() {
    let a = (&[Some(1), Some(2)][..], &[Some("a"), Some("b")][..]);
    let b = (
        &[None, Some(1), Some(2)][..],
        &[Some("a"), None, Some("b")][..],
    );
    let rows = load(OnDuplicate::First, &[a, b]);
    let null_key = rows.null_key.clone().unwrap();
    assert_eq!((null_key.row, null_key.column.as_str()), (2, "id"));
    assert_eq!(selections(&rows), [None, Some(vec![])]);
    let duplicates = rows.duplicates.unwrap();
    assert_eq!(
        (duplicates.num_duplicate_rows, duplicates.first.rows),
        (1, [1, 4])
    );
}
