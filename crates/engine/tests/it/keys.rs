use std::sync::Arc;

use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int8Array,
    Int32Array, Int64Array, NullArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    TimestampSecondArray, UInt64Array,
};
use arrow_schema::{DataType, Field, IntervalUnit};
use darner_engine::{
    Dimension, DimensionBuilder, ErrorKind, LayoutKind, Matches, NO_MATCH, check_key_field,
};

fn dimension(keys: &[ArrayRef]) -> Dimension {
    let columns = keys
        .iter()
        .enumerate()
        .map(|(idx, key)| (format!("k{idx}"), Arc::clone(key)));
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let names: Vec<String> = (0..keys.len()).map(|idx| format!("k{idx}")).collect();
    let mut builder = DimensionBuilder::new("dim", rows.schema(), &names).unwrap();
    builder.upsert(rows).unwrap();
    builder.finish().unwrap()
}

fn probe(dimension: &Dimension, facts: &[ArrayRef]) -> (Vec<Option<u32>>, usize) {
    let mut matches = Matches::default();
    dimension.probe(facts, &mut matches).unwrap();
    let rows: Vec<_> = matches
        .build_idx()
        .iter()
        .map(|&row| (row != NO_MATCH).then_some(row))
        .collect();
    assert_eq!(rows.iter().flatten().count(), matches.num_matched());
    assert_eq!(
        rows.len(),
        matches.num_matched() + matches.num_missed() + matches.num_null_keys()
    );
    (rows, matches.num_null_keys())
}

fn check(keys: impl Array + 'static, facts: impl Array + 'static, expected: &[Option<u32>]) {
    let facts: ArrayRef = Arc::new(facts);
    let dimension = dimension(&[Arc::new(keys)]);
    assert_eq!(probe(&dimension, &[Arc::clone(&facts)]).0, expected);
    // A composite key compares its parts in the same way, as one number if it can be one, and as rows.
    let keys = Arc::clone(
        dimension
            .batches(1 << 20)
            .next()
            .unwrap()
            .unwrap()
            .column(0),
    );
    let same = |value: i128, len| -> ArrayRef {
        let values = Decimal128Array::from(vec![value; len]);
        Arc::new(values.with_precision_and_scale(38, 0).unwrap())
    };
    for (part, as_rows) in [(7, false), (10_i128.pow(37), true)] {
        let composite = self::dimension(&[Arc::clone(&keys), same(part, keys.len())]);
        let is_row = composite.layout().kind() == LayoutKind::Row;
        assert!(is_row || !as_rows);
        let facts = [Arc::clone(&facts), same(part, facts.len())];
        assert_eq!(probe(&composite, &facts).0, expected);
    }
}

#[test]
fn unsigned_and_signed_keys_compare_by_value() {
    let above = i64::MAX as u64 + 1;
    check(
        Int64Array::from(vec![i64::MIN, -1, 0, i64::MAX]),
        UInt64Array::from(vec![above, u64::MAX, 0, i64::MAX as u64]),
        &[None, None, Some(2), Some(3)],
    );
    check(
        UInt64Array::from(vec![above, u64::MAX, 0, i64::MAX as u64]),
        Int64Array::from(vec![i64::MIN, -1, 0, i64::MAX]),
        &[None, None, Some(2), Some(3)],
    );
    check(
        UInt64Array::from(vec![above, u64::MAX]),
        Decimal128Array::from(vec![
            i128::from(u64::MAX) * 10,
            -10,
            i128::from(above) * 10 + 1,
        ])
        .with_precision_and_scale(30, 1)
        .unwrap(),
        &[Some(1), None, None],
    );
}

#[test]
fn timestamps_compare_as_instants() {
    check(
        TimestampSecondArray::from(vec![0, -1, i64::MAX]).with_timezone("Europe/Berlin"),
        TimestampMicrosecondArray::from(vec![0, 1, -1_000_000, -999_999, i64::MAX, i64::MIN]),
        &[Some(0), None, Some(1), None, None, None],
    );
    check(
        TimestampMicrosecondArray::from(vec![0, i64::MAX, i64::MIN]),
        TimestampSecondArray::from(vec![0, i64::MAX, i64::MIN]),
        &[Some(0), None, None],
    );
}

#[test]
fn decimals_compare_by_exact_value() {
    let decimal = |values: Vec<i128>, scale| {
        Decimal128Array::from(values)
            .with_precision_and_scale(38, scale)
            .unwrap()
    };
    check(
        Int32Array::from(vec![1, 0]),
        decimal(vec![100, 101, 0, 10], 2),
        &[Some(0), None, Some(1), None],
    );
    let wide = decimal(vec![10_i128.pow(37), 5, -(10_i128.pow(30))], 1);
    assert_eq!(
        dimension(&[Arc::new(wide.clone())]).layout().kind(),
        LayoutKind::Row
    );
    check(
        wide,
        decimal(vec![10_i128.pow(36), 50, i128::MAX], 0),
        &[Some(0), None, None],
    );
}

#[test]
fn several_columns_are_one_number_where_they_leave_room() {
    let ints = |values: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
    let texts = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let above = u64::MAX - 1;
    // Numbers that begin anywhere, and facts below, above and between them.
    let dense = dimension(&[
        ints(&[-5, -5, -4, -3]),
        texts(&["JFK", "EWR", "JFK", ""]),
        Arc::new(UInt64Array::from(vec![above, above, above, u64::MAX])),
    ]);
    assert_eq!(dense.layout().kind(), LayoutKind::Direct);
    let wide = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0].map(|more| i128::from(above) + more);
    let wide = Decimal128Array::from_iter_values(wide);
    let facts = [
        ints(&[-5, -5, -4, -3, -3, -6, -2, -5, i64::MAX, i64::MIN, -4]),
        texts(&[
            "EWR", "JFK", "JFK", "", "", "JFK", "JFK", "LGA", "JFK", "JFK", "JFKA",
        ]),
        Arc::new(wide.with_precision_and_scale(38, 0).unwrap()),
    ];
    let mut expected = vec![Some(1), Some(0), Some(2), Some(3)];
    expected.resize(facts[0].len(), None);
    assert_eq!(probe(&dense, &facts).0, expected);
    // A negative number is past every key, also where several columns have none.
    let unknown = Arc::new(Int64Array::from(vec![-1; 11]));
    let none = [ints(&[9; 11]), texts(&["?"; 11]), unknown];
    assert_eq!(probe(&dense, &none).0, vec![None; 11]);

    let far = [ints(&[0, 1 << 30, 1]), ints(&[7, -(1 << 31), 8])];
    let sparse = dimension(&far);
    assert_eq!(sparse.layout().kind(), LayoutKind::Hash);
    let facts = [ints(&[1 << 30, 0, 0]), ints(&[-(1 << 31), 7, -(1 << 31)])];
    assert_eq!(probe(&sparse, &facts).0, [Some(1), Some(0), None]);

    let full = [ints(&[0, i64::MAX]), ints(&[0, 1])];
    let rows = dimension(&full);
    assert_eq!(rows.layout().kind(), LayoutKind::Row);
    assert_eq!(probe(&rows, &full).0, [Some(0), Some(1)]);
    // Half of that: one bit less, which just fits.
    let half = [ints(&[1, i64::MAX, 2]), ints(&[0, 0, 0])];
    let fits = dimension(&half);
    assert_eq!(fits.layout().kind(), LayoutKind::Hash);
    assert_eq!(probe(&fits, &half).0, [Some(0), Some(1), Some(2)]);
    assert_eq!(probe(&fits, &full).0, [None, None]);
}

#[test]
fn null_never_matches() {
    let facts: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), None, Some(1)]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some(""), None]));
    let ints = dimension(&[Arc::new(Int64Array::from(vec![0, 1]))]);
    assert_eq!(
        probe(&ints, &[Arc::clone(&facts)]),
        (vec![Some(0), None, Some(1)], 1)
    );
    let bytes = dimension(&[Arc::new(StringArray::from(vec!["", "x"]))]);
    assert_eq!(
        probe(&bytes, &[Arc::clone(&text)]),
        (vec![Some(0), Some(0), None], 1)
    );
    let both = dimension(&[
        Arc::new(Int64Array::from(vec![0, 1])),
        Arc::new(StringArray::from(vec!["", ""])),
    ]);
    assert_eq!(
        probe(&both, &[facts, Arc::clone(&text)]),
        (vec![Some(0), None, None], 2)
    );
    let nothing: ArrayRef = Arc::new(NullArray::new(3));
    assert_eq!(probe(&both, &[nothing, text]), (vec![None; 3], 3));
}

#[test]
fn dictionary_keys_are_counted_by_row() {
    let dim = dimension(&[Arc::new(StringArray::from(vec!["a", "b"]))]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![
        Some("b"),
        None,
        Some("unused"),
        Some("z"),
    ]));
    let keys = Int8Array::from(vec![
        Some(0),
        Some(1),
        None,
        Some(3),
        Some(0),
        Some(3),
        Some(3),
    ]);
    let facts: ArrayRef = Arc::new(DictionaryArray::<Int8Type>::new(keys, values));
    let mut matches = Matches::default();
    dim.probe(&[Arc::clone(&facts)], &mut matches).unwrap();
    assert_eq!(matches.build_idx()[0], 1);
    let counts = (
        matches.num_matched(),
        matches.num_missed(),
        matches.num_null_keys(),
    );
    assert_eq!(counts, (2, 3, 2));
    // More values than rows, none, and only nulls.
    assert_eq!(probe(&dim, &[facts.slice(3, 2)]), (vec![None, Some(1)], 0));
    assert_eq!(probe(&dim, &[facts.slice(3, 0)]), (vec![], 0));
    let empty: ArrayRef = Arc::new(StringArray::from(Vec::<&str>::new()));
    let nulls = Int32Array::new_null(3);
    let facts: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(nulls, empty));
    assert_eq!(probe(&dim, &[facts]), (vec![None; 3], 3));
}

#[test]
fn integer_layouts_find_every_key_of_any_spacing() {
    let cases: Vec<(LayoutKind, Vec<i64>)> = vec![
        (LayoutKind::Direct, (0..50_000).rev().collect()),
        (
            LayoutKind::Direct,
            (-20_000..30_000).map(|i| i * 3).collect(),
        ),
        (LayoutKind::Direct, vec![i64::MAX, i64::MAX - 9]),
        (LayoutKind::Direct, vec![i64::MIN]),
        (LayoutKind::Hash, vec![i64::MIN, i64::MAX, 0, -1]),
        (
            LayoutKind::Direct,
            (0..50_000).map(|i| i * 86_400_000_000).collect(),
        ),
        (
            LayoutKind::Direct,
            (0..150_000)
                .map(|hour| 3_600_000_000_000 * (490_000 - hour))
                .collect(),
        ),
        (LayoutKind::Direct, vec![i64::MIN, i64::MAX]),
        (
            LayoutKind::Direct,
            (0..50_000).map(|i: i64| i.wrapping_mul(1 << 47)).collect(),
        ),
        (
            LayoutKind::Hash,
            (0..50_000)
                .map(|i: i64| i.wrapping_mul(0x2545_F491_4F6C_DD1D))
                .collect(),
        ),
        (
            LayoutKind::Hash,
            (0..50_000).map(|i| i * i * 7919).collect(),
        ),
    ];
    for (kind, mut keys) in cases {
        let mut seen = std::collections::HashSet::new();
        keys.retain(|key| seen.insert(*key));
        let dim = dimension(&[Arc::new(Int64Array::from(keys.clone()))]);
        assert_eq!(dim.layout().kind(), kind, "{}", dim.layout());
        let mut facts = keys.clone();
        facts.extend(keys.iter().map(|key| key.wrapping_add(1)));
        let expected: Vec<_> = facts
            .iter()
            .map(|fact| seen.contains(fact).then_some(*fact))
            .collect();
        let (rows, _) = probe(&dim, &[Arc::new(Int64Array::from(facts))]);
        let found: Vec<_> = rows
            .iter()
            .map(|row| row.map(|row| keys[row as usize]))
            .collect();
        assert!(found == expected, "{}", dim.layout());
    }
}

#[test]
fn types_that_cannot_be_keys_are_refused() {
    for (data_type, remedy) in [
        (DataType::Float64, "integer or a decimal"),
        (DataType::Interval(IntervalUnit::MonthDayNano), "duration"),
        (
            DataType::new_list(DataType::Int64, true),
            "separate key columns",
        ),
        (DataType::Null, "cast it"),
    ] {
        let error = check_key_field(&Field::new("k", data_type.clone(), true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        for part in [remedy, "column=`k`", &format!("type=`{data_type}`")] {
            assert!(error.message().contains(part), "{error}");
        }
    }
}

#[test]
fn keys_of_different_families_are_refused() {
    let dim = dimension(&[Arc::new(Int64Array::from(vec![1]))]);
    let mut matches = Matches::default();
    let facts: [ArrayRef; 4] = [
        Arc::new(StringArray::from(vec!["1"])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(TimestampSecondArray::from(vec![1])),
        Arc::new(Float64Array::from(vec![1.0])),
    ];
    for fact in facts {
        let error = dim.probe(&[fact], &mut matches).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error
                .message()
                .contains("dimension=`dim` key=`k0` key_type=`Int64`"),
            "{error}"
        );
    }
    let two: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    assert!(dim.probe(&[Arc::clone(&two), two], &mut matches).is_err());
}
