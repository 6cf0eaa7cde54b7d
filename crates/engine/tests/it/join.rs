use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt32Array,
};
use arrow_schema::{DataType, Field, Schema};
use arrow_select::concat::concat_batches;
use darner_engine::{
    Collect, Dimension, DimensionBuilder, Encoding, JoinCounters, JoinKind, JoinSpec, Joined,
    MissingKeys, OnColumn, OnMiss, Scratch, StarJoin,
};

use crate::generate::{Random, column, families, seed};
use crate::oracle::{Outcome, Rows, Scalar, join_row, keys};

const KINDS: [(JoinKind, OnMiss); 7] = [
    (JoinKind::Left, OnMiss::Null),
    (JoinKind::Left, OnMiss::Drop),
    (JoinKind::Left, OnMiss::Route),
    (JoinKind::Left, OnMiss::Default),
    (JoinKind::Inner, OnMiss::Null),
    (JoinKind::Semi, OnMiss::Null),
    (JoinKind::Anti, OnMiss::Null),
];
const ENCODINGS: [Encoding; 3] = [Encoding::Plain, Encoding::View, Encoding::Dictionary];
const BATCH_ROWS: [usize; 8] = [1, 2, 7, 49, 50, 51, 1000, 100_000];

/// A dimension, and the same as the oracle has it.
struct Case {
    dimension: Arc<Dimension>,
    rows: Rows,
    /// All rows of the input: the key columns, then the payload.
    input: RecordBatch,
    num_keys: usize,
}

fn case(random: &mut Random, key_types: &[DataType], num_pages: usize, with_deletes: bool) -> Case {
    let mut fields: Vec<Field> = key_types
        .iter()
        .enumerate()
        .map(|(idx, data_type)| Field::new(format!("k{idx}"), data_type.clone(), false))
        .collect();
    let names: Vec<String> = fields.iter().map(|field| field.name().clone()).collect();
    fields.extend([
        Field::new("number", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
    ]);
    let schema = Arc::new(Schema::new(fields));
    let mut builder = DimensionBuilder::new("dim", Arc::clone(&schema), &names).unwrap();
    let mut rows = Rows::default();
    let mut pages = Vec::new();
    let mut num_input = 0_i64;
    for _ in 0..num_pages {
        let len = random.pick(&[0, 1, 2, 7, 30]);
        let mut columns: Vec<ArrayRef> = key_types
            .iter()
            .map(|data_type| column(random, data_type, len, 0))
            .collect();
        rows.upsert(&columns);
        let numbers = num_input..num_input + i64::try_from(len).unwrap();
        let text = |n: i64| (n % 5 != 0).then(|| format!("{n} {}", "y".repeat(n as usize % 20)));
        columns.push(Arc::new(Int64Array::from_iter_values(numbers.clone())));
        columns.push(Arc::new(numbers.clone().map(text).collect::<StringArray>()));
        columns.push(Arc::new(
            numbers
                .map(|n| (n % 3 != 0).then_some(n as f64))
                .collect::<Float64Array>(),
        ));
        num_input += i64::try_from(len).unwrap();
        let page = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        builder.upsert(page.clone()).unwrap();
        pages.push(page);
        if with_deletes && random.is_one_in(3) {
            let columns: Vec<ArrayRef> = key_types
                .iter()
                .map(|data_type| column(random, data_type, 5, 4))
                .collect();
            rows.delete(&columns);
            let names = names.iter().cloned().zip(columns);
            builder
                .delete(RecordBatch::try_from_iter(names).unwrap())
                .unwrap();
        }
    }
    // The last row of the input is that of a join's defaults; no key has it.
    pages.push(default_row(&schema, key_types));
    let input = concat_batches(&schema, &pages).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    assert_eq!(dimension.num_rows(), rows.live.len());
    Case {
        dimension,
        rows,
        input,
        num_keys: key_types.len(),
    }
}

fn default_row(schema: &Arc<Schema>, key_types: &[DataType]) -> RecordBatch {
    let mut random = Random::new(0);
    let mut columns: Vec<ArrayRef> = key_types
        .iter()
        .map(|data_type| column(&mut random, data_type, 1, 0))
        .collect();
    columns.push(Arc::new(Int64Array::from(vec![-1])));
    columns.push(Arc::new(StringArray::from(vec!["none of them"])));
    columns.push(Arc::new(Float64Array::from(vec![None])));
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn facts(random: &mut Random, types: &[DataType], len: usize, null_one_in: usize) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef, bool)> = types
        .iter()
        .enumerate()
        .map(|(idx, t)| (format!("f{idx}"), column(random, t, len, null_one_in), true))
        .collect();
    let rows = Int64Array::from_iter_values(0..i64::try_from(len).unwrap());
    columns.push(("row".to_owned(), Arc::new(rows), false));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn spec(alias: &str, on: &[(String, String)], kind: JoinKind, on_miss: OnMiss) -> JoinSpec {
    let on = on
        .iter()
        .map(|(fact, key)| OnColumn {
            fact: fact.clone(),
            key: Some(key.clone()),
        })
        .collect();
    let alias = Some(alias.to_owned());
    let defaults = [("number", "-1"), ("text", "none of them")];
    let has_defaults = on_miss == OnMiss::Default;
    let defaults = defaults.iter().filter(|_| has_defaults);
    JoinSpec {
        table: "dim".to_owned(),
        alias,
        kind,
        on,
        on_miss,
        defaults: defaults
            .map(|(column, value)| ((*column).to_owned(), (*value).to_owned()))
            .collect(),
        ..JoinSpec::default()
    }
}

/// Joins facts in batches of a size; the outputs, and the sums of the rest.
fn run(
    join: &StarJoin,
    facts: &RecordBatch,
    batch_rows: usize,
) -> (RecordBatch, Vec<JoinCounters>, Vec<MissingKeys>) {
    let mut scratch = Scratch::default();
    let num_joins = join.joins().len();
    let mut counters = vec![JoinCounters::default(); num_joins];
    let mut missing = vec![MissingKeys::default(); num_joins];
    let mut batches = vec![plain(&RecordBatch::new_empty(Arc::clone(
        join.output_schema(),
    )))];
    // One batch of no rows comes first.
    let mut batch = facts.slice(0, 0);
    let mut start = 0;
    loop {
        let joined: Joined = join.join(&batch, &mut scratch).unwrap();
        for idx in 0..num_joins {
            counters[idx] += joined.counters[idx];
            missing[idx].merge(&joined.missing_keys[idx]);
        }
        assert_eq!(joined.batch.schema(), *join.output_schema());
        batches.push(plain(&joined.batch));
        if start == facts.num_rows() {
            break;
        }
        let len = batch_rows.min(facts.num_rows() - start);
        batch = facts.slice(start, len);
        start += len;
    }
    let schema = batches[0].schema();
    (
        concat_batches(&schema, &batches).unwrap(),
        counters,
        missing,
    )
}

/// The batch without dictionaries: Arrow cannot put those of many batches together.
fn plain(batch: &RecordBatch) -> RecordBatch {
    let columns = batch
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Dictionary(_, values) => arrow_cast::cast(column, values).unwrap(),
            _ => Arc::clone(column),
        });
    let names = batch.schema();
    let names = names.fields().iter().map(|field| field.name().clone());
    let columns = names
        .zip(columns)
        .map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// The expected column: rows of the input, null where there is none.
fn expected_column(input: &RecordBatch, name: &str, rows: &[Option<u32>]) -> ArrayRef {
    let indices: UInt32Array = rows.iter().copied().collect();
    let values = input.column_by_name(name).unwrap();
    if values.is_empty() {
        return arrow_array::new_null_array(values.data_type(), rows.len());
    }
    arrow_select::take::take(values, &indices, None).unwrap()
}

fn assert_column(output: &RecordBatch, name: &str, expected: &ArrayRef, what: &str) {
    let got = output
        .column_by_name(name)
        .unwrap_or_else(|| panic!("no column {name}: {what}"));
    let got = arrow_cast::cast(got, expected.data_type()).unwrap();
    assert_eq!(&got, expected, "{what}, column {name}");
}

/// The join of facts with a star of dimensions equals the nested loops.
fn check_star(
    cases: &[(&Case, Vec<usize>, (JoinKind, OnMiss))],
    facts: &RecordBatch,
    encoding: Encoding,
    batch_rows: usize,
    what: &str,
) {
    let mut joins = Vec::new();
    for (idx, (case, fact_columns, (kind, on_miss))) in cases.iter().enumerate() {
        let on: Vec<_> = fact_columns
            .iter()
            .enumerate()
            .map(|(key, fact)| (format!("f{fact}"), format!("k{key}")))
            .rev()
            .collect();
        joins.push((
            spec(&format!("d{idx}"), &on, *kind, *on_miss),
            Arc::clone(&case.dimension),
        ));
    }
    let join = StarJoin::new(&facts.schema(), None, joins, encoding).unwrap();
    let (output, counters, missing) = run(&join, facts, batch_rows);

    // Per kept row: its fact row, and the input row of every dimension.
    let mut kept: Vec<(u32, Vec<Option<u32>>)> = (0..u32::try_from(facts.num_rows()).unwrap())
        .map(|row| (row, Vec::new()))
        .collect();
    for (idx, (case, fact_columns, (kind, on_miss))) in cases.iter().enumerate() {
        let columns: Vec<_> = fact_columns
            .iter()
            .map(|&column| Arc::clone(facts.column(column)))
            .collect();
        let fact_keys: Vec<Option<Vec<Scalar>>> = keys(&columns);
        let mut expected = JoinCounters::default();
        let mut missed: Vec<&Vec<Scalar>> = Vec::new();
        kept.retain_mut(|(row, build)| {
            let key = fact_keys[*row as usize].as_ref();
            let found = key.and_then(|key| case.rows.find(key));
            expected.num_rows += 1;
            expected.num_matched += u64::from(found.is_some());
            expected.num_null_keys += u64::from(key.is_none());
            if let (Some(key), None) = (key, found) {
                expected.num_missed += 1;
                if !missed.contains(&key) {
                    missed.push(key);
                }
            }
            match join_row(*kind, *on_miss, key, found) {
                Outcome::Dropped => false,
                Outcome::Kept(found) => {
                    build.push(found);
                    true
                }
                Outcome::Defaulted => {
                    build.push(Some(u32::try_from(case.input.num_rows() - 1).unwrap()));
                    true
                }
            }
        });
        assert_eq!(counters[idx], expected, "{what}, join {idx}");
        assert_eq!(
            missing[idx].num_rows(),
            expected.num_missed,
            "{what}, join {idx}"
        );
        assert_eq!(
            missing[idx].num_distinct(),
            missed.len(),
            "{what}, join {idx}"
        );
    }
    let fact_rows: Vec<i64> = kept.iter().map(|(row, _)| i64::from(*row)).collect();
    let got_rows = output
        .column_by_name("row")
        .unwrap()
        .as_primitive::<Int64Type>();
    assert_eq!(got_rows.values(), &fact_rows[..], "{what}");
    let mut num_added = 0;
    for (idx, (case, _, (kind, _))) in cases.iter().enumerate() {
        if matches!(kind, JoinKind::Semi | JoinKind::Anti) {
            continue;
        }
        let rows: Vec<_> = kept.iter().map(|(_, build)| build[idx]).collect();
        for name in ["number", "text", "amount"] {
            let expected = expected_column(&case.input, name, &rows);
            let output_name = if num_added == 0 {
                name.to_owned()
            } else {
                format!("d{idx}_{name}")
            };
            assert_column(&output, &output_name, &expected, what);
        }
        num_added += 1;
    }
    assert_eq!(
        output.num_columns(),
        facts.num_columns() + 3 * num_added,
        "{what}"
    );
}

#[test]
fn join_equals_oracle_for_every_pair_of_key_types() {
    let seed = seed(1);
    for family in families() {
        for (dim_idx, dim_type) in family.iter().enumerate() {
            for (fact_idx, fact_type) in family.iter().enumerate() {
                let mut random = Random::new(seed + (dim_idx * 100 + fact_idx) as u64);
                let case = case(&mut random, std::slice::from_ref(dim_type), 3, true);
                let null_one_in = random.pick(&[0, 0, 3, 10]);
                let facts = facts(
                    &mut random,
                    std::slice::from_ref(fact_type),
                    60,
                    null_one_in,
                );
                for kind in KINDS {
                    let encoding = random.pick(&ENCODINGS);
                    let batch_rows = random.pick(&BATCH_ROWS);
                    let what = format!("{fact_type} = {dim_type}, {kind:?}, {encoding:?}");
                    check_star(
                        &[(&case, vec![0], kind)],
                        &facts,
                        encoding,
                        batch_rows,
                        &what,
                    );
                }
            }
        }
    }
}

#[test]
fn join_equals_oracle_for_every_kind_encoding_and_batch_size() {
    let seed = seed(2);
    let families = families();
    for round in 0..12 {
        let mut random = Random::new(seed + round);
        let family = random.pick(&families);
        let (dim_type, fact_type) = (random.pick(&family), random.pick(&family));
        let case = case(
            &mut random,
            std::slice::from_ref(&dim_type),
            6,
            round % 2 == 0,
        );
        let null_one_in = random.pick(&[0, 1, 2, 50]);
        let facts = facts(
            &mut random,
            std::slice::from_ref(&fact_type),
            103,
            null_one_in,
        );
        for kind in KINDS {
            for encoding in ENCODINGS {
                for batch_rows in BATCH_ROWS {
                    let what = format!(
                        "{fact_type} = {dim_type}, {kind:?}, {encoding:?}, batches of {batch_rows}"
                    );
                    check_star(
                        &[(&case, vec![0], kind)],
                        &facts,
                        encoding,
                        batch_rows,
                        &what,
                    );
                }
            }
        }
    }
}

#[test]
fn composite_keys_equal_oracle() {
    let seed = seed(3);
    let families = families();
    for round in 0..150 {
        let mut random = Random::new(seed + round);
        let num_columns = 2 + random.below(2);
        let (mut dim_types, mut fact_types) = (Vec::new(), Vec::new());
        for _ in 0..num_columns {
            let family = random.pick(&families);
            dim_types.push(random.pick(&family));
            fact_types.push(random.pick(&family));
        }
        let case = case(&mut random, &dim_types, 8, true);
        let facts = facts(&mut random, &fact_types, 120, random_nulls(round));
        let (kind, encoding) = (random.pick(&KINDS), random.pick(&ENCODINGS));
        let what = format!("round {round}: {fact_types:?} = {dim_types:?}, {kind:?}, {encoding:?}");
        let columns = (0..case.num_keys).collect();
        check_star(&[(&case, columns, kind)], &facts, encoding, 50, &what);
    }
}

fn random_nulls(round: u64) -> usize {
    [0, 5, 20][usize::try_from(round % 3).unwrap()]
}

#[test]
fn star_joins_equal_oracle() {
    let seed = seed(4);
    let families = families();
    for round in 0..150 {
        let mut random = Random::new(seed + round);
        let mut fact_types = Vec::new();
        let mut cases = Vec::new();
        for _ in 0..2 + random.below(3) {
            let family = random.pick(&families);
            let num_columns = 1 + random.below(2);
            let mut columns = Vec::new();
            let mut dim_types = Vec::new();
            for _ in 0..num_columns {
                columns.push(fact_types.len());
                fact_types.push(random.pick(&family));
                dim_types.push(random.pick(&family));
            }
            let case = case(&mut random, &dim_types, 10, round % 3 == 0);
            cases.push((case, columns, random.pick(&KINDS)));
        }
        let facts = facts(&mut random, &fact_types, 150, random_nulls(round));
        let cases: Vec<_> = cases
            .iter()
            .map(|(case, columns, kind)| (case, columns.clone(), *kind))
            .collect();
        let (encoding, batch_rows) = (random.pick(&ENCODINGS), random.pick(&BATCH_ROWS));
        let what = format!("round {round}: {fact_types:?}, {encoding:?}");
        check_star(&cases, &facts, encoding, batch_rows, &what);
    }
}

/// Keys that differ by case, white space and type, as the join and as a loop over the rows match them.
#[test]
fn normalized_keys_equal_oracle() {
    let texts = [
        "a", " a", "B ", "b", " ÄB", "äb", "\u{a0}7", "7", " 8 ", "x", "",
    ];
    let steps = [
        ("f", vec![]),
        ("trim(f)", vec!["trim"]),
        ("UPPER( trim(f) )", vec!["trim", "upper"]),
        ("trim(lower(f))", vec!["lower", "trim"]),
    ];
    let types = [
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
    ];
    for seed in seed(11)..seed(11) + 40 {
        let mut random = Random::new(seed);
        let some = |random: &mut Random, null_one_in: usize, len: usize| -> Vec<Option<&str>> {
            (0..len)
                .map(|_| {
                    let is_null = null_one_in > 0 && random.is_one_in(null_one_in);
                    (!is_null).then(|| random.pick(&texts))
                })
                .collect()
        };
        let mut known = some(&mut random, 0, 6);
        known.sort_unstable();
        known.dedup();
        let facts = some(&mut random, 5, 50);
        let keys: ArrayRef = Arc::new(StringArray::from(known.clone()));
        let rows = RecordBatch::try_from_iter([("key", keys)]).unwrap();
        let mut builder = DimensionBuilder::new("d", rows.schema(), &["key".to_owned()]).unwrap();
        builder.upsert(rows).unwrap();
        let dimension = Arc::new(builder.finish().unwrap());
        let (text, steps) = random.pick(&steps);
        let fact_type = random.pick(&types);
        let plain: ArrayRef = Arc::new(StringArray::from(facts.clone()));
        let column = arrow_cast::cast(&plain, &fact_type).unwrap();
        let batch = RecordBatch::try_from_iter_with_nullable([("f", column, true)]).unwrap();
        let spec = JoinSpec::parse(&format!("semi d on {text}=key")).unwrap();
        let joins = vec![(spec, dimension)];
        let join = StarJoin::new(&batch.schema(), None, joins, Encoding::Plain).unwrap();
        let joined = join.join(&batch, &mut Scratch::default()).unwrap();
        let normal = |fact: &str| {
            steps
                .iter()
                .fold(fact.to_owned(), |text, step| match *step {
                    "trim" => text.trim().to_owned(),
                    "upper" => text.to_uppercase(),
                    _ => text.to_lowercase(),
                })
        };
        let is_known =
            |fact: Option<&str>| known.contains(&fact.map(normal).as_deref()) && fact.is_some();
        let expected: Vec<_> = facts
            .iter()
            .copied()
            .filter(|&fact| is_known(fact))
            .collect();
        let got = arrow_cast::cast(joined.batch.column(0), &DataType::Utf8).unwrap();
        let got: Vec<_> = got.as_string::<i32>().iter().collect();
        assert_eq!(got, expected, "seed {seed}: {text}, {fact_type}");
        let num_nulls = facts.iter().filter(|fact| fact.is_none()).count();
        let counters = joined.counters[0];
        assert_eq!(counters.num_null_keys, num_nulls as u64, "seed {seed}");
        let num_missed = facts.len() - num_nulls - expected.len();
        assert_eq!(counters.num_missed, num_missed as u64, "seed {seed}");
    }
}

#[test]
fn what_cannot_be_cast_is_missed_and_is_no_null() {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
    let rows = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let mut builder = DimensionBuilder::new("d", rows.schema(), &["id".to_owned()]).unwrap();
    builder.upsert(rows).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    let texts = vec![Some(" 7"), Some("x"), None, Some("9"), Some("8 ")];
    let texts: ArrayRef = Arc::new(StringArray::from(texts));
    let facts = RecordBatch::try_from_iter_with_nullable([("t", texts, true)]).unwrap();
    let plan = |text: &str| {
        let joins = vec![(JoinSpec::parse(text).unwrap(), Arc::clone(&dimension))];
        StarJoin::new(&facts.schema(), None, joins, Encoding::Plain)
    };
    let join = plan("anti d on cast(trim(t) as int64)=id").unwrap();
    let joined = join.join(&facts, &mut Scratch::default()).unwrap();
    let expected = JoinCounters {
        num_rows: 5,
        num_matched: 2,
        num_missed: 2,
        num_null_keys: 1,
    };
    assert_eq!(joined.counters[0], expected);
    let top = joined.missing_keys[0].top(9);
    let keys: Vec<_> = top.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(keys, ["9", "x"]);
    let error = plan("d on trim(cast(t as int64))=id").unwrap_err();
    assert!(error.message().contains("only text has a trim"), "{error}");
}

#[test]
fn defaults_must_fit_the_columns() {
    let mut random = Random::new(1);
    let case = case(&mut random, &[DataType::Int64], 1, false);
    let facts = facts(&mut random, &[DataType::Int64], 3, 0);
    for (text, words) in [
        ("dim on f0 on_miss default number=x", "default of `number`"),
        ("dim on f0 on_miss default numbre=1", "column=`numbre`"),
        ("inner dim on f0 on_miss drop", "only a left join"),
    ] {
        let joins = vec![(JoinSpec::parse(text).unwrap(), Arc::clone(&case.dimension))];
        let error = StarJoin::new(&facts.schema(), None, joins, Encoding::Plain).unwrap_err();
        assert!(error.message().contains(words), "{error}");
    }
}

#[test]
fn fact_columns_are_shared_when_every_row_is_kept() {
    let mut random = Random::new(seed(5));
    let case = case(&mut random, &[DataType::Int64], 5, false);
    let facts = facts(&mut random, &[DataType::Int64], 40, 5);
    let spec = spec(
        "d",
        &[("f0".into(), "k0".into())],
        JoinKind::Left,
        OnMiss::Null,
    );
    let dimensions = vec![(spec, Arc::clone(&case.dimension))];
    let join = StarJoin::new(&facts.schema(), None, dimensions, Encoding::Dictionary).unwrap();
    let joined = join.join(&facts, &mut Scratch::default()).unwrap();
    assert!(Arc::ptr_eq(joined.batch.column(0), facts.column(0)));
    // All columns of the dimension share the keys, and their values are the dimension's own in
    // every batch.
    let again = join
        .join(&facts.slice(3, 9), &mut Scratch::default())
        .unwrap();
    let dictionary = |batch: &RecordBatch, idx: usize| {
        batch
            .column(idx)
            .as_dictionary::<arrow_array::types::Int32Type>()
            .clone()
    };
    let (number, text) = (dictionary(&joined.batch, 2), dictionary(&joined.batch, 3));
    assert!(
        number
            .keys()
            .values()
            .inner()
            .ptr_eq(text.keys().values().inner())
    );
    assert!(Arc::ptr_eq(
        number.values(),
        dictionary(&again.batch, 2).values()
    ));
}

#[test]
fn missed_rows_and_missing_keys_are_those_of_the_fact_batch() {
    let rows = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        (
            "name",
            Arc::new(StringArray::from(vec!["a", "b", "c"])) as ArrayRef,
        ),
    ])
    .unwrap();
    let mut builder = DimensionBuilder::new("dim", rows.schema(), &["id".to_owned()]).unwrap();
    builder.upsert(rows).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    let facts = RecordBatch::try_from_iter([
        (
            "a",
            Arc::new(Int64Array::from(vec![9, 1, 2, 3, 3])) as ArrayRef,
        ),
        (
            "b",
            Arc::new(Int64Array::from(vec![
                Some(1),
                None,
                Some(7),
                Some(7),
                Some(8),
            ])) as ArrayRef,
        ),
    ])
    .unwrap();
    let joins = vec![
        (
            JoinSpec::parse("semi dim on a=id").unwrap(),
            Arc::clone(&dimension),
        ),
        (
            JoinSpec::parse("dim on b=id").unwrap(),
            Arc::clone(&dimension),
        ),
    ];
    let collect = Collect {
        missing_keys: true,
        missed_rows: true,
        times: false,
    };
    let join = StarJoin::new(&facts.schema(), None, joins, Encoding::Plain).unwrap();
    let joined = join
        .with_collect(collect)
        .join(&facts, &mut Scratch::default())
        .unwrap();
    assert_eq!(joined.missed_rows, [vec![0], vec![2, 3, 4]]);
    let top: Vec<_> = joined.missing_keys[1]
        .top(9)
        .into_iter()
        .map(|key| (key.key, key.num_rows))
        .collect();
    assert_eq!(top, [("7".to_owned(), 2), ("8".to_owned(), 1)]);

    let mut failing = JoinSpec::parse("dim on b=id").unwrap();
    failing.on_miss = OnMiss::Error;
    let joins = vec![(failing, dimension)];
    let join = StarJoin::new(&facts.schema(), None, joins, Encoding::Plain).unwrap();
    let mut scratch = Scratch::default();
    scratch.first_row = 100;
    let error = join.join(&facts, &mut scratch).unwrap_err();
    assert_eq!(error.kind(), darner_engine::ErrorKind::Data);
    for part in ["table=`dim`", "column=`b`", "key=`7`", "row=`102`"] {
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn missing_keys_are_text_and_merge_in_any_order() {
    let times = arrow_array::TimestampSecondArray::from(vec![1_357_020_000, i64::MAX]);
    let facts = RecordBatch::try_from_iter([
        (
            "origin",
            Arc::new(StringArray::from(vec!["EWR", "JFK"])) as ArrayRef,
        ),
        ("hour", Arc::new(times.with_timezone("UTC")) as ArrayRef),
    ])
    .unwrap();
    let names = ["origin".to_owned(), "hour".to_owned()];
    let builder = DimensionBuilder::new("weather", facts.schema(), &names).unwrap();
    let dimension = Arc::new(builder.finish().unwrap());
    let joins = vec![(
        JoinSpec::parse("weather on origin, hour").unwrap(),
        dimension,
    )];
    let join = StarJoin::new(&facts.schema(), None, joins, Encoding::Plain).unwrap();
    let joined = join.join(&facts, &mut Scratch::default()).unwrap();
    let mut missing = joined.missing_keys[0].clone();
    missing.merge(&joined.missing_keys[0]);
    let mut other = MissingKeys::default();
    other.add("A", 2);
    let mut turned = other.clone();
    turned.merge(&missing);
    missing.merge(&other);
    assert_eq!(missing.top(10), turned.top(10));
    let text: Vec<_> = missing.top(10).into_iter().map(|key| key.key).collect();
    assert_eq!(
        text,
        ["A", "EWR, 2013-01-01T06:00:00Z", "JFK, 9223372036854775807"]
    );
    assert_eq!((missing.num_rows(), missing.num_distinct()), (6, 3));
    assert!(missing.is_complete());
}

/// A dimension that is large enough for its columns to be packed into rows, which begins once as many facts as it has
/// rows were joined, has the same answers before and after.
#[test]
fn large_dimensions_equal_take() {
    const NUM_ROWS: i64 = 30_000;
    let seed = seed(77);
    let mut random = Random::new(seed);
    // To multiply by an odd number keeps keys apart, and spreads them over 64 bits.
    for factor in [1, 0x2545_F491_4F6C_DD1D] {
        let ids = (0..NUM_ROWS).map(|id: i64| id.wrapping_mul(factor));
        let ids: Int64Array = ids.collect();
        let mut text = |len_max: usize| -> StringArray {
            (0..NUM_ROWS)
                .map(|id| {
                    let len = random.below(len_max + 1);
                    (id % 7 != 3).then(|| "ö".repeat(len / 2) + &"z".repeat(len % 2))
                })
                .collect()
        };
        let input = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(ids.clone()) as ArrayRef, false),
            ("short", Arc::new(text(9)), true),
            (
                "amount",
                Arc::new(Float64Array::from_iter_values((0..30_000).map(f64::from))),
                true,
            ),
            // Many values: numbers of those of the others would make rows no shorter.
            (
                "middle",
                Arc::new(
                    (0..NUM_ROWS)
                        .map(|id| {
                            (id % 7 != 3).then(|| format!("{id:0>31}").split_off(id as usize % 27))
                        })
                        .collect::<StringArray>(),
                ),
                true,
            ),
            ("long", Arc::new(text(90)), true),
            (
                "number",
                Arc::new(
                    (0..NUM_ROWS)
                        .map(|id| (id % 5 != 1).then_some(id))
                        .collect::<Int64Array>(),
                ),
                true,
            ),
        ])
        .unwrap();
        let mut builder = DimensionBuilder::new("dim", input.schema(), &["id".to_owned()]).unwrap();
        builder.upsert(input.clone()).unwrap();
        let dimension = Arc::new(builder.finish().unwrap());
        for encoding in [Encoding::Plain, Encoding::View] {
            let bytes_before = dimension.memory_bytes();
            for round in 0..4 {
                let rows: Vec<Option<u32>> = (0..20_000)
                    .map(|_| Some(random.below(33_000) as u32).filter(|row| *row < 30_000))
                    .collect();
                let key = |row: &Option<u32>| row.map_or(-5, |row| ids.value(row as usize));
                let facts: Int64Array = rows.iter().map(key).collect();
                let facts =
                    RecordBatch::try_from_iter([("key", Arc::new(facts) as ArrayRef)]).unwrap();
                let spec = JoinSpec::parse("dim on key=id").unwrap();
                let join = StarJoin::new(
                    &facts.schema(),
                    None,
                    vec![(spec, Arc::clone(&dimension))],
                    encoding,
                )
                .unwrap();
                let joined = join.join(&facts, &mut Scratch::default()).unwrap();
                let output = plain(&joined.batch);
                for name in ["short", "amount", "middle", "long", "number"] {
                    let expected = expected_column(&input, name, &rows);
                    let what = format!("seed={seed} {factor} {encoding:?} {round} {name}");
                    assert_column(&output, name, &expected, &what);
                }
            }
            // Beside the views, of which there are three.
            let added = dimension.memory_bytes() - bytes_before;
            let view_bytes = if encoding == Encoding::View {
                3 * 16
            } else {
                0
            };
            assert!(
                added >= 30_000 * (64 + view_bytes),
                "{encoding:?}: packed, {added} bytes"
            );
        }
    }
}
