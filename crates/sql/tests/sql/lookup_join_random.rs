//! The oracle is DataFusion: its own joins over the same rows in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::{arrow::compute::cast, prelude::SessionConfig};

use crate::{
    random::{Random, seed},
    support::{TestSession, TestStore, sorted},
};

/// The payload of a row of the dimension: `name`, `n`, `x`.
type Payload = (Option<String>, Option<i64>, f64);

/// Keys are small numbers, cast to the types of their columns.
struct Dimension {
    schema: SchemaRef,
    num_keys: usize,
    rows: BTreeMap<Vec<i64>, Payload>,
}

/// Types that compare with each other.
fn families() -> Vec<Vec<DataType>> {
    let dictionary = |values| DataType::Dictionary(Box::new(DataType::Int32), Box::new(values));
    vec![
        vec![
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
            DataType::Decimal128(12, 2),
        ],
        vec![
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            dictionary(DataType::Utf8),
        ],
        vec![DataType::Date32, DataType::Date64],
        vec![
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Timestamp(TimeUnit::Second, None),
        ],
        vec![DataType::Timestamp(
            TimeUnit::Millisecond,
            Some("UTC".into()),
        )],
        vec![DataType::Boolean],
        vec![DataType::Binary, DataType::BinaryView],
    ]
}

fn key_column(values: Vec<Option<i64>>, data_type: &DataType) -> ArrayRef {
    let through = match data_type {
        DataType::Date32 | DataType::Date64 => vec![DataType::Int32, DataType::Date32],
        DataType::Binary | DataType::BinaryView | DataType::Dictionary(..) => vec![DataType::Utf8],
        _ => vec![],
    };
    let values: ArrayRef = Arc::new(Int64Array::from(values));
    let steps = through.iter().chain([data_type]);
    steps.fold(values, |values, step| cast(&values, step).unwrap())
}

impl Dimension {
    fn new(types: &[DataType]) -> Self {
        let keys = types.iter().enumerate();
        let keys = keys.map(|(at, key)| Field::new(format!("k{at}"), key.clone(), false));
        let payload = [
            Field::new("name", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
            Field::new("x", DataType::Float64, false),
        ];
        Self {
            schema: Arc::new(Schema::new(keys.chain(payload).collect::<Vec<_>>())),
            num_keys: types.len(),
            rows: BTreeMap::new(),
        }
    }

    fn key_names(&self) -> Vec<String> {
        (0..self.num_keys).map(|at| format!("k{at}")).collect()
    }

    fn keys(&self, keys: &[&Vec<i64>]) -> Vec<ArrayRef> {
        let columns = 0..self.num_keys;
        columns
            .map(|at| {
                let values = keys.iter().map(|key| Some(key[at])).collect();
                key_column(values, self.schema.field(at).data_type())
            })
            .collect()
    }

    fn batch(&self, rows: &[(&Vec<i64>, &Payload)]) -> RecordBatch {
        let keys: Vec<_> = rows.iter().map(|row| row.0).collect();
        let mut columns = self.keys(&keys);
        let payload = || rows.iter().map(|row| row.1);
        columns.push(Arc::new(
            payload().map(|row| row.0.clone()).collect::<StringArray>(),
        ));
        columns.push(Arc::new(payload().map(|row| row.1).collect::<Int64Array>()));
        columns.push(Arc::new(
            payload().map(|row| Some(row.2)).collect::<Float64Array>(),
        ));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).unwrap()
    }

    /// Makes the table by some commits, with updates and deletes among them.
    fn fill(&mut self, store: &TestStore, random: &mut Random, domain: i64, is_boolean: bool) {
        let domain = if is_boolean { 2 } else { domain };
        let num_keys = self.num_keys;
        let key = |random: &mut Random| -> Vec<i64> {
            (0..num_keys).map(|_| random.int(0..domain)).collect()
        };
        let names = self.key_names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for commit in 0..=random.int(0..4) {
            let num_rows = if random.chance(10) {
                0
            } else {
                random.int(0..120)
            };
            let mut upserts = BTreeMap::new();
            for _ in 0..num_rows {
                let name = random.next() % 20;
                let name = (!random.chance(15)).then(|| "é".repeat(usize::try_from(name).unwrap()));
                let n = (!random.chance(15)).then(|| random.int(-5..40));
                let x = f64::from(i32::try_from(random.int(-50..50)).unwrap()) / 4.0;
                upserts.insert(key(random), (name, n, x));
            }
            let rows: Vec<_> = upserts.iter().collect();
            store.upsert("d", &names, &self.batch(&rows));
            self.rows.extend(upserts);
            if commit > 0 && random.chance(60) {
                let deletes: BTreeSet<_> = (0..random.int(1..30)).map(|_| key(random)).collect();
                let arrays = self.keys(&deletes.iter().collect::<Vec<_>>());
                let schema = self
                    .schema
                    .project(&(0..num_keys).collect::<Vec<_>>())
                    .unwrap();
                store.delete(
                    "d",
                    &RecordBatch::try_new(Arc::new(schema), arrays).unwrap(),
                );
                self.rows.retain(|key, _| !deletes.contains(key));
            }
        }
    }
}

/// Facts with the columns `f0..` for the keys, `a` and `b`.
fn facts(
    random: &mut Random,
    types: &[DataType],
    domain: i64,
    num_rows: i64,
) -> (SchemaRef, Vec<Vec<RecordBatch>>) {
    let fields = types.iter().enumerate();
    let fields = fields.map(|(at, key)| Field::new(format!("f{at}"), key.clone(), true));
    let others = [
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, false),
    ];
    let schema = Arc::new(Schema::new(fields.chain(others).collect::<Vec<_>>()));
    let percent_null = *random.pick(&[0, 0, 10, 60]);
    let num_partitions = random.int(1..4);
    let mut partitions = vec![Vec::new(); usize::try_from(num_partitions).unwrap()];
    let mut left = num_rows;
    while left > 0 {
        let len = random.int(0..left.min(90) + 1);
        left -= len;
        let mut columns: Vec<ArrayRef> = Vec::new();
        for key in types {
            let null = |random: &mut Random| random.chance(percent_null);
            let values = (0..len)
                .map(|_| (!null(random)).then(|| random.int(0..domain)))
                .collect();
            columns.push(key_column(values, key));
        }
        let a = (0..len).map(|_| (!random.chance(10)).then(|| random.int(-5..40)));
        columns.push(Arc::new(a.collect::<Int64Array>()));
        let b = (0..len).map(|_| Some(format!("b{}", random.int(0..5))));
        columns.push(Arc::new(b.collect::<StringArray>()));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let at = usize::try_from(random.int(0..num_partitions)).unwrap();
        partitions[at].push(batch);
    }
    (schema, partitions)
}

/// What is expected of the plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Lookup,
    Hash,
    /// Depends on what else DataFusion knows.
    Either,
}

/// Queries over facts `f` and a dimension `@D`, joined where `@ON`, and what their plans are to be.
const JOINS: &[(Plan, &str)] = &[
    (Plan::Lookup, "SELECT * FROM f JOIN @D d ON @ON"),
    (Plan::Lookup, "SELECT d.*, f.* FROM @D d JOIN f ON @ON"),
    (Plan::Lookup, "SELECT * FROM f LEFT JOIN @D d ON @ON"),
    (Plan::Lookup, "SELECT * FROM @D d RIGHT JOIN f ON @ON"),
    (Plan::Hash, "SELECT * FROM @D d LEFT JOIN f ON @ON"),
    (Plan::Hash, "SELECT * FROM f RIGHT JOIN @D d ON @ON"),
    (Plan::Hash, "SELECT * FROM f FULL JOIN @D d ON @ON"),
    (Plan::Lookup, "SELECT * FROM f LEFT SEMI JOIN @D d ON @ON"),
    (Plan::Lookup, "SELECT * FROM @D d RIGHT SEMI JOIN f ON @ON"),
    (Plan::Hash, "SELECT * FROM @D d LEFT SEMI JOIN f ON @ON"),
    (Plan::Lookup, "SELECT * FROM f LEFT ANTI JOIN @D d ON @ON"),
    (Plan::Lookup, "SELECT * FROM @D d RIGHT ANTI JOIN f ON @ON"),
    (Plan::Hash, "SELECT * FROM @D d LEFT ANTI JOIN f ON @ON"),
    (
        Plan::Lookup,
        "SELECT f.b FROM f WHERE EXISTS (SELECT 1 FROM @D d WHERE @ON)",
    ),
    (
        Plan::Lookup,
        "SELECT * FROM f WHERE NOT EXISTS (SELECT 1 FROM @D d WHERE @ON)",
    ),
    (
        Plan::Lookup,
        "SELECT a, b FROM f WHERE f.a > 20 OR EXISTS (SELECT 1 FROM @D d WHERE @ON)",
    ),
    (
        Plan::Lookup,
        "SELECT a, b FROM f WHERE (NOT EXISTS (SELECT 1 FROM @D d WHERE @ON)) = (f.a > 20)",
    ),
    (
        Plan::Lookup,
        "SELECT f.b, count(*), sum(d.n), max(d.name) FROM f JOIN @D d ON @ON GROUP BY f.b",
    ),
    (Plan::Either, "SELECT count(*) FROM f LEFT JOIN @D d ON @ON"),
    (
        Plan::Either,
        "SELECT count(d.n), count(f.a) FROM @D d JOIN f ON @ON",
    ),
    (
        Plan::Lookup,
        "SELECT upper(d.name), d.k0 FROM f JOIN @D d ON @ON",
    ),
];

/// More of them, with equal keys alone: `@KEY` for `d`, `@E` for another dimension `e`, `@SAME` for both.
const OTHERS: &[(Plan, &str)] = &[
    (
        Plan::Lookup,
        "SELECT * FROM f JOIN @D d ON @KEY AND d.n = f.a",
    ),
    (
        Plan::Lookup,
        "SELECT f.*, d.x FROM f LEFT JOIN @D d ON @KEY AND d.n = f.a + 1",
    ),
    (
        Plan::Either,
        "SELECT f.*, d.x FROM f LEFT JOIN @D d ON @KEY AND d.n + 1 = f.a",
    ),
    (
        Plan::Lookup,
        "SELECT * FROM f LEFT JOIN @D d ON @KEY WHERE f.a > 3 AND d.n IS NULL",
    ),
    (
        Plan::Either,
        "SELECT * FROM f JOIN @D d ON @KEY WHERE d.n > 10 AND f.b <> 'b1'",
    ),
    (
        Plan::Lookup,
        "SELECT d.n, e.name FROM f JOIN @D d ON @KEY LEFT JOIN @D e ON @E",
    ),
    (
        Plan::Either,
        "SELECT d.n, e.name FROM @D d JOIN @D e ON @SAME",
    ),
    (Plan::Hash, "SELECT * FROM f JOIN @D d ON f.a = d.n"),
    (Plan::Lookup, "SELECT * FROM f LEFT JOIN @D d ON @DISTINCT"),
    (
        Plan::Either,
        "SELECT * FROM f WHERE f.f0 IN (SELECT k0 FROM @D)",
    ),
    (
        Plan::Either,
        "SELECT * FROM f WHERE f.f0 NOT IN (SELECT k0 FROM @D)",
    ),
];

fn queries(num_keys: usize, residual: &str) -> Vec<(Plan, String)> {
    let parts = |pair: &dyn Fn(usize) -> String| {
        let pairs: Vec<String> = (0..num_keys).map(pair).collect();
        pairs.join(" AND ")
    };
    let key = parts(&|at| format!("d.k{at} = f.f{at}"));
    let conditional = format!("{key} AND {residual}");
    // A condition on one side alone moves there, and a dimension with one is not a whole table.
    let is_residual = ["f.", "d."].iter().all(|side| residual.contains(side));
    let with_residual = |plan| if is_residual { plan } else { Plan::Either };
    let plain = JOINS
        .iter()
        .map(|(plan, sql)| (*plan, sql.replace("@ON", &key)));
    let conditional = JOINS
        .iter()
        .map(|(plan, sql)| (with_residual(*plan), sql.replace("@ON", &conditional)));
    let others = OTHERS.iter().map(|(plan, sql)| {
        let distinct = parts(&|at| format!("(d.k{at} IS NOT DISTINCT FROM f.f{at})"));
        let sql = sql
            .replace("@KEY", &key)
            .replace("@E", &parts(&|at| format!("e.k{at} = f.f{at}")))
            .replace("@SAME", &parts(&|at| format!("d.k{at} = e.k{at}")))
            .replace("@DISTINCT", &distinct);
        (*plan, sql)
    });
    let part_of_key = "SELECT * FROM f JOIN @D d ON f.f0 = d.k0".to_owned();
    let part_of_key = (num_keys > 1).then_some((Plan::Hash, part_of_key));
    plain
        .chain(conditional)
        .chain(others)
        .chain(part_of_key)
        .collect()
}

#[test]
fn lookups_give_the_rows_of_hash_joins() {
    let seed = seed(1);
    for round in 0..30 {
        let mut random = Random::new(seed + round);
        let families = families();
        let num_keys = *random.pick(&[1, 1, 1, 2, 3]);
        let mut dimension_types = Vec::new();
        let mut fact_types = Vec::new();
        for _ in 0..num_keys {
            let family = random.pick(&families);
            dimension_types.push(random.pick(family).clone());
            let same = random.chance(50);
            let other = random.pick(family).clone();
            fact_types.push(if same {
                dimension_types[dimension_types.len() - 1].clone()
            } else {
                other
            });
        }
        let is_boolean = dimension_types.contains(&DataType::Boolean);
        let domain = match num_keys {
            _ if is_boolean => 3,
            1 => *random.pick(&[3, 60, 120]),
            _ => 7,
        };
        let store = TestStore::new();
        let mut dimension = Dimension::new(&dimension_types);
        dimension.fill(&store, &mut random, domain, is_boolean);
        let num_stored = store.store.table("d").unwrap().num_stored_rows();

        let num_facts = *random.pick(&[0, 1, 50, 400]);
        let config = SessionConfig::new()
            .with_target_partitions(*random.pick(&[1, 3]))
            .with_batch_size(*random.pick(&[1, 7, 50, 8192]));
        let session = TestSession::new(&store, config);
        let (schema, partitions) = facts(&mut random, &fact_types, domain, num_facts);
        session.put("f", &schema, partitions);
        let rows: Vec<_> = dimension.rows.iter().collect();
        let table = store.store.table("d").unwrap();
        session.put("m", table.schema(), vec![vec![dimension.batch(&rows)]]);

        let residuals = [
            "d.n > f.a",
            "d.n + f.a > 30",
            "(d.name IS NULL OR f.b = 'b1')",
            "d.x < 1.0",
            "f.a > 10",
            "(d.n = f.a OR d.k0 IS NULL)",
        ];
        let is_large = num_facts > 1 && u64::try_from(num_facts * 20).unwrap() >= num_stored;
        for (expected, sql) in queries(num_keys, random.pick::<&str>(&residuals)) {
            let case = format!(
                "seed={} {dimension_types:?} {fact_types:?} {sql}",
                seed + round
            );
            let in_memory = sql.replace("@D", "m");
            let stored = sql.replace("@D", "darner.public.d");
            session.set("darner.lookup_join", true);
            let (plan, with) = session.plan(&stored);
            let is_lookup = plan.contains("LookupJoinExec");
            match expected {
                Plan::Lookup if is_large => assert!(is_lookup, "{case}\n{plan}"),
                Plan::Hash => assert!(!is_lookup, "{case}\n{plan}"),
                Plan::Lookup | Plan::Either => {}
            }
            let got = sorted(session.query(&stored));
            session.set("darner.lookup_join", false);
            let (plan, without) = session.plan(&stored);
            assert!(!plan.contains("LookupJoinExec"), "{case}\n{plan}");
            assert_eq!(with, without, "{case}");
            assert_eq!(got, sorted(session.query(&in_memory)), "{case}");
        }
    }
}
