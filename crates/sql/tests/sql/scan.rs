//! Random queries on random tables of a store: the same rows must come as from DataFusion's own tables in memory.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};
use darner_store::{CompactionMode, Store, StoreOptions, TableSpec};
use datafusion::{
    arrow::{
        compute::{cast, concat_batches},
        util::display::array_value_to_string,
    },
    catalog::MemTable,
    prelude::{SessionConfig, SessionContext},
};
use tokio::runtime::Runtime;

use crate::random::{self, Random};

/// A column: its type in `arrow_cast`, and values as SQL has them. The first value is the smallest.
struct Column {
    name: String,
    data_type: &'static str,
    is_key: bool,
}

/// Types with SQL expressions of type text or number that are cast to them, small domains so that filters meet.
const TYPES: [(&str, bool); 21] = [
    ("Int64", true),
    ("Int32", true),
    ("Int8", true),
    ("UInt64", true),
    ("UInt16", true),
    ("Utf8", true),
    ("LargeUtf8", true),
    ("Utf8View", true),
    ("Binary", true),
    ("Boolean", true),
    ("Date32", true),
    ("Timestamp(Microsecond, None)", true),
    ("Timestamp(Nanosecond, Some(\"UTC\"))", true),
    ("Timestamp(Second, Some(\"Europe/Berlin\"))", true),
    ("Decimal128(12, 3)", true),
    ("Decimal256(40, 2)", true),
    ("Dictionary(Int32, Utf8)", true),
    ("Float64", false),
    ("Float32", false),
    ("Time64(Microsecond)", true),
    ("Float16", false),
];

fn plain_type(data_type: &str) -> &str {
    match data_type {
        "Dictionary(Int32, Utf8)" => "Utf8",
        "Dictionary(Int16, Int64)" => "Int64",
        other => other,
    }
}

/// A literal of a type, from a small domain.
fn literal(random: &mut Random, data_type: &str) -> String {
    let number = random.below(40);
    let text = match plain_type(data_type) {
        "Utf8" | "LargeUtf8" | "Utf8View" | "Binary" => {
            let long = "long".repeat(40);
            let tail = ["", "", "%", "_", "\u{e9}", &long][random.below(6)];
            format!("'{}{number}{tail}'", ["", "a", "B"][random.below(3)])
        }
        "Boolean" => format!("{}", number.is_multiple_of(2)),
        "Date32" => format!(
            "'20{:02}-0{}-1{}'",
            number % 30,
            1 + number % 9,
            number % 10
        ),
        "Time64(Microsecond)" => format!("'{:02}:{:02}:00'", number % 24, number),
        "Float64" | "Float32" | "Float16" => match random.below(10) {
            0 => "'NaN'".to_owned(),
            1 => "'-0.0'".to_owned(),
            2 => "'0.0'".to_owned(),
            3 => "'-inf'".to_owned(),
            4 => "'inf'".to_owned(),
            _ => format!("'{}.5'", i32::try_from(number).unwrap() - 20),
        },
        "UInt64" | "UInt16" => format!("{number}"),
        timestamp if timestamp.starts_with("Timestamp") => {
            // Around the end of summer time, when an hour comes twice.
            format!("'2024-10-27T0{}:{:02}:00Z'", random.below(5), number)
        }
        decimal if decimal.starts_with("Decimal") => {
            format!("'{}.{:02}'", i32::try_from(number).unwrap() - 20, number)
        }
        _ => format!("{}", i32::try_from(number).unwrap() - 20),
    };
    format!("arrow_cast({text}, '{}')", data_type.replace('\'', "''"))
}

/// A condition on the columns.
fn condition(random: &mut Random, columns: &[Column], depth: usize) -> String {
    if depth > 0 && random.is_one_in(2) {
        let (a, b) = (
            condition(random, columns, depth - 1),
            condition(random, columns, depth - 1),
        );
        return match random.below(5) {
            0 | 1 => format!("({a} AND {b})"),
            2 | 3 => format!("({a} OR {b})"),
            _ => format!("NOT ({a})"),
        };
    }
    // Keys more often, because most is done for them.
    let column = if random.is_one_in(2) {
        &columns[0]
    } else {
        &columns[random.below(columns.len())]
    };
    let name = &column.name;
    let mut value = || literal(random, column.data_type);
    let (a, b, c) = (value(), value(), value());
    match random.below(16) {
        0 => format!("{name} IS NULL"),
        1 => format!("{name} IS NOT NULL"),
        2 => format!("{name} BETWEEN {a} AND {b}"),
        3 => format!("{name} IN ({a}, {b}, {c})"),
        4 => format!("{name} NOT IN ({a}, {b})"),
        5 => format!("{name} IS DISTINCT FROM {a}"),
        6 => format!("{name} IS NOT DISTINCT FROM {a}"),
        7 if column.data_type.starts_with("Timestamp") => {
            let to = ["Date32", "Time64(Microsecond)", "Timestamp(Second, None)"];
            let to = to[random.below(3)];
            // Not `=`: DataFusion 55 takes a column for a constant then, and sorts and groups it wrongly.
            let sign = random.pick(&["<", ">", "<>"]);
            format!("arrow_cast({name}, '{to}') {sign} arrow_cast({a}, '{to}')")
        }
        7 if plain_type(column.data_type).contains("Utf8") => {
            let pattern = random.pick(&["a1%", "%1", "B_%", "1", "a%2%", ""]);
            let not = random.pick(&["", "NOT "]);
            format!("{name} {not}LIKE '{pattern}'")
        }
        7 => format!("try_cast({name} AS DOUBLE) < 5"),
        8 => format!("CASE WHEN {name} = {a} THEN true ELSE {name} < {b} END"),
        9 => {
            let list: Vec<String> = (0..30).map(|_| literal(random, column.data_type)).collect();
            format!("{name} IN ({})", list.join(", "))
        }
        n => {
            let sign = ["=", "<>", "<", "<=", ">", ">="][n - 10];
            format!("{name} {sign} {a}")
        }
    }
}

/// A query whose rows are known but for their order.
fn query(random: &mut Random, columns: &[Column]) -> String {
    let depth = random.below(3);
    let filter = if random.is_one_in(5) {
        String::new()
    } else {
        format!(" WHERE {}", condition(random, columns, depth))
    };
    let picked: Vec<&str> = columns
        .iter()
        .filter(|_| !random.is_one_in(2))
        .map(|column| column.name.as_str())
        .collect();
    let all = columns.iter().map(|column| column.name.as_str());
    let keys: Vec<&str> = columns
        .iter()
        .filter(|column| column.is_key)
        .map(|column| column.name.as_str())
        .collect();
    let keys = keys.join(", ");
    match random.below(9) {
        0 => format!("SELECT count(*) FROM t{filter}"),
        1 => {
            let mut list = String::new();
            for name in all.clone() {
                write!(list, "count({name}), ").unwrap();
                // Dictionaries and booleans have their own ways.
                let column = columns.iter().find(|column| column.name == name).unwrap();
                if !column.data_type.starts_with("Dict") && column.data_type != "Boolean" {
                    write!(list, "min({name}), max({name}), ").unwrap();
                }
            }
            format!("SELECT {list}count(*) FROM t{filter}")
        }
        2 => format!(
            "SELECT {keys} FROM t{filter} ORDER BY {keys} LIMIT {}",
            random.below(30)
        ),
        3 => format!(
            "SELECT {keys} FROM t{filter} ORDER BY {keys} DESC LIMIT {}",
            random.below(30)
        ),
        4 => {
            let limit = random.below(50);
            format!("SELECT count(*) FROM (SELECT * FROM t{filter} LIMIT {limit})")
        }
        5 => format!(
            "SELECT a.*, b.* FROM t a JOIN t b ON {} WHERE {}",
            columns
                .iter()
                .filter(|column| column.is_key)
                .map(|column| format!("a.{0} = b.{0}", column.name))
                .collect::<Vec<_>>()
                .join(" AND "),
            condition(random, columns, 1)
                .split("c0")
                .collect::<Vec<_>>()
                .join("a.c0")
                .split("c1")
                .collect::<Vec<_>>()
                .join("b.c1")
                .replace("c2", "a.c2")
                .replace("c3", "b.c3")
                .replace("c4", "a.c4")
        ),
        6 => format!(
            "SELECT {0}, count(*), min(c0) FROM t{filter} GROUP BY {0}",
            columns[random.below(columns.len())].name
        ),
        _ if picked.is_empty() => format!("SELECT * FROM t{filter}"),
        _ => format!("SELECT {} FROM t{filter}", picked.join(", ")),
    }
}

/// The rows as text, in an order of their own.
fn printed(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows()).map(|row| {
                let columns = batch.columns().iter();
                let values = columns.map(|column| {
                    if column.is_null(row) {
                        "NULL".to_owned()
                    } else {
                        array_value_to_string(column, row).unwrap()
                    }
                });
                values.collect::<Vec<_>>().join("|")
            })
        })
        .collect();
    rows.sort();
    rows
}

async fn collect(context: &SessionContext, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let frame = context.sql(sql).await.map_err(|error| error.to_string())?;
    frame.collect().await.map_err(|error| error.to_string())
}

/// Rows that a commit brings.
async fn new_rows(
    context: &SessionContext,
    random: &mut Random,
    columns: &[Column],
) -> RecordBatch {
    let num_rows_max = [4, 60, 600][random.below(3)];
    let num_rows = 1 + random.below(num_rows_max);
    let mut rows = Vec::new();
    for _ in 0..num_rows {
        let values: Vec<String> = columns
            .iter()
            .map(|column| {
                if !column.is_key && random.is_one_in(4) {
                    "NULL".to_owned()
                } else {
                    literal(random, column.data_type)
                }
            })
            .collect();
        rows.push(format!("({})", values.join(", ")));
    }
    let list: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let data_type = column.data_type;
            format!(
                "arrow_cast(column{}, '{data_type}') AS {}",
                i + 1,
                column.name
            )
        })
        .collect();
    let sql = format!(
        "SELECT {} FROM (VALUES {})",
        list.join(", "),
        rows.join(", ")
    );
    let batches = collect(context, &sql).await.unwrap();
    let fields = batches[0].schema();
    let fields = fields.fields().iter().zip(columns).map(|(field, column)| {
        // Some declare what is so anyhow.
        field.as_ref().clone().with_nullable(!column.is_key)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batches: Vec<RecordBatch> = batches
        .into_iter()
        .map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).unwrap())
        .collect();
    concat_batches(&schema, &batches).unwrap()
}

/// The same rows with buffers of their own: the dictionaries and views of many slices have those of all of them, and each
/// small batch would carry them along.
fn packed(rows: &RecordBatch) -> RecordBatch {
    let columns = rows
        .columns()
        .iter()
        .map(|column| match column.data_type() {
            DataType::Dictionary(_, value) => {
                cast(&cast(column, value).unwrap(), column.data_type()).unwrap()
            }
            _ => Arc::clone(column),
        });
    RecordBatch::try_new(rows.schema(), columns.collect()).unwrap()
}

fn keys_of(rows: &RecordBatch, spec: &TableSpec) -> RecordBatch {
    let columns = spec.key_columns().iter();
    let columns = columns.map(|column| Arc::clone(rows.column(*column)));
    RecordBatch::try_new(Arc::clone(spec.key_schema()), columns.collect()).unwrap()
}

/// The rows by key as text: what the store must hold.
type Model = BTreeMap<String, RecordBatch>;

fn key_text(rows: &RecordBatch, row: usize, columns: &[Column]) -> String {
    let keys = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.is_key);
    keys.map(|(i, _)| array_value_to_string(rows.column(i), row).unwrap())
        .collect::<Vec<_>>()
        .join("|")
}

/// Returns the number of queries that had an answer.
async fn run(seed: u64, num_queries: usize) -> usize {
    println!("DARNER_SEED={seed}");
    let mut random = Random::new(seed);
    let num_columns = 2 + random.below(4);
    let num_keys = 1 + usize::from(random.is_one_in(3));
    let columns: Vec<Column> = (0..num_columns)
        .map(|i| {
            loop {
                let (data_type, can_be_key) = TYPES[random.below(TYPES.len())];
                if can_be_key || i >= num_keys {
                    break Column {
                        name: format!("c{i}"),
                        data_type,
                        is_key: i < num_keys,
                    };
                }
            }
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        page_bytes: [200, 1000, 64 << 10][random.below(3)],
        compaction: CompactionMode::Never,
        ..StoreOptions::default()
    };
    let store = Arc::new(Store::open(dir.path(), options).unwrap());
    // DataFusion's joins give each small batch the dictionaries, or the buffers of views, of all batches.
    let is_shared = |column: &Column| {
        ["Dict", "Utf8View"]
            .iter()
            .any(|t| column.data_type.starts_with(t))
    };
    let batch_rows_min = if columns.iter().any(is_shared) {
        500
    } else {
        3
    };
    let batch_rows = [batch_rows_min, 500, 8192][random.below(3)];
    let config = SessionConfig::new()
        .with_target_partitions(1 + random.below(4))
        .with_batch_size(batch_rows);
    let context = SessionContext::new_with_config(config.clone());
    let memory = SessionContext::new_with_config(config);
    let mut model = Model::new();
    let mut spec = None;
    for _ in 0..=random.below(6) {
        let rows = new_rows(&memory, &mut random, &columns).await;
        let mut transaction = store.begin().unwrap();
        let spec = spec.get_or_insert_with(|| {
            let keys: Vec<&str> = columns[..num_keys]
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            let spec = TableSpec::new(&rows.schema(), &keys).unwrap();
            transaction.create_table("t", spec.clone()).unwrap();
            spec
        });
        if random.is_one_in(3) {
            transaction.delete("t", &keys_of(&rows, spec)).unwrap();
            for row in 0..rows.num_rows() {
                model.remove(&key_text(&rows, row, &columns));
            }
        } else {
            transaction.upsert("t", &rows).unwrap();
            for row in 0..rows.num_rows() {
                model.insert(key_text(&rows, row, &columns), rows.slice(row, 1));
            }
        }
        transaction.commit().unwrap();
        match random.below(6) {
            0 => store.compact_table("t").unwrap(),
            1 => store.checkpoint().unwrap(),
            _ => {}
        }
    }
    let is_reader = random.is_one_in(4);
    let reader = if is_reader {
        Arc::new(Store::open_read_only(dir.path()).unwrap())
    } else {
        Arc::clone(&store)
    };
    let catalog = darner_sql::register(&context, reader, "darner");
    let schema = Arc::clone(store.table("t").unwrap().schema());
    let rows = packed(&concat_batches(&schema, model.values()).unwrap());
    let half = rows.num_rows() / 2;
    let parts = vec![
        vec![rows.slice(0, half)],
        vec![rows.slice(half, rows.num_rows() - half)],
    ];
    let table = MemTable::try_new(schema, parts).unwrap();
    memory.register_table("t", Arc::new(table)).unwrap();
    let table = {
        use datafusion::catalog::CatalogProvider;
        let schema = catalog.schema(darner_sql::SCHEMA).unwrap();
        schema.table("t").await.unwrap().unwrap()
    };
    context.register_table("t", table).unwrap();
    let mut num_answers = 0;
    for _ in 0..num_queries {
        let sql = query(&mut random, &columns);
        let expected = collect(&memory, &sql).await;
        let found = collect(&context, &sql).await;
        let types = columns.iter().map(|c| c.data_type).collect::<Vec<_>>();
        match (&expected, &found) {
            (Ok(expected), Ok(found)) => {
                num_answers += 1;
                assert_eq!(
                    printed(found),
                    printed(expected),
                    "seed {seed} {types:?}\n{sql}"
                );
            }
            // What DataFusion cannot do with a type is the same for all tables.
            (Err(_), Err(_)) => {}
            _ => panic!("seed {seed} {types:?}\n{sql}\n{expected:?}\n{found:?}"),
        }
    }
    num_answers
}

#[test]
fn random_queries_give_the_rows_of_tables_in_memory() {
    let runtime = Runtime::new().unwrap();
    let seed = random::seed(1);
    let num_tables: u64 = match std::env::var("DARNER_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap(),
        Err(_) => 40,
    };
    let mut num_answers = 0;
    for round in 0..num_tables {
        num_answers += runtime.block_on(run(seed + round, 30));
    }
    let num_queries = usize::try_from(num_tables).unwrap() * 30;
    assert!(
        num_answers * 10 > num_queries * 9,
        "{num_answers} of {num_queries}"
    );
}

#[test]
fn conditions_of_many_terms_are_no_harder_than_in_memory() {
    let runtime = Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), StoreOptions::default()).unwrap());
    let context = SessionContext::new();
    darner_sql::register(&context, Arc::clone(&store), "darner");
    runtime.block_on(async {
        let sql = "SELECT value AS id, value AS n FROM generate_series(1, 100) AS s(value)";
        let rows = collect(&context, sql).await.unwrap();
        let mut transaction = store.begin().unwrap();
        let spec = TableSpec::new(&rows[0].schema(), &["id"]).unwrap();
        transaction.create_table("t", spec).unwrap();
        for rows in &rows {
            transaction.upsert("t", rows).unwrap();
        }
        transaction.commit().unwrap();
    });
    for (operator, expected) in [("AND", "85"), ("OR", "100")] {
        // With more DataFusion 55 itself runs out of stack, in a debug build.
        let terms: Vec<String> = (0..400).map(|i| format!("n <> {}", i * 7 + 1)).collect();
        // Half of them on another column, so that they do not become one list.
        let others = (0..400).map(|i| format!("id > n - {i} - 1"));
        let terms: Vec<String> = terms
            .into_iter()
            .zip(others)
            .flat_map(<[_; 2]>::from)
            .collect();
        let sql = format!(
            "SELECT count(*) FROM darner.public.t WHERE {}",
            terms.join(&format!(" {operator} "))
        );
        let found = runtime.block_on(runtime.spawn({
            let context = context.clone();
            async move { collect(&context, &sql).await }
        }));
        let found = printed(&found.unwrap().unwrap());
        assert_eq!(found, [expected], "{operator}");
    }
}
