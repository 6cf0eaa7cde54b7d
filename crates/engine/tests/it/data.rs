//! Shared batches and helpers.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
#![expect(
    clippy::from_iter_instead_of_collect,
    reason = "names the array type first"
)]

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, TimestampSecondArray,
    UInt64Array,
    types::{Int32Type, UInt32Type},
};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use darner_engine::{Result, SinkOptions, Source, SourceOptions, create, open};
use std::{path::Path, sync::Arc};

/// A tiny seeded generator (xorshift64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Columns that every format can hold.
pub(crate) fn flat_batch(num_rows: i32) -> RecordBatch {
    let rows = || 0..num_rows;
    let every = |n: i32| move |i: i32| i % n != 0;
    let text = |i: i32| format!("value \"{i}\", and\nmore é");
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "int64",
            Arc::new(Int64Array::from_iter(
                rows().map(|i| every(3)(i).then_some(i64::from(i) * 1_000_000_007)),
            )),
        ),
        (
            "float64",
            Arc::new(Float64Array::from_iter(
                rows().map(|i| every(5)(i).then_some(f64::from(i) / 7.0)),
            )),
        ),
        (
            "bool",
            Arc::new(BooleanArray::from_iter(
                rows().map(|i| every(4)(i).then_some(i % 2 == 0)),
            )),
        ),
        (
            "text",
            Arc::new(StringArray::from_iter(
                rows().map(|i| every(2)(i).then(|| text(i))),
            )),
        ),
        (
            "date",
            Arc::new(Date32Array::from_iter(
                rows().map(|i| every(7)(i).then_some(i + 10_000)),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

/// Columns of all common types, nested ones too.
pub(crate) fn wide_batch(num_rows: i32) -> RecordBatch {
    let rows = || 0..num_rows;
    let some = |i: i32| i % 3 != 1;
    let flat = flat_batch(num_rows);
    let mut fields: Vec<Field> = flat
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    let mut columns = flat.columns().to_vec();
    let mut add = |name: &str, column: ArrayRef| {
        fields.push(Field::new(name, column.data_type().clone(), true));
        columns.push(column);
    };
    add(
        "int8",
        Arc::new(Int8Array::from_iter(
            rows().map(|i| some(i).then_some(i8::try_from(i % 100).unwrap())),
        )),
    );
    add(
        "uint64",
        Arc::new(UInt64Array::from_iter(rows().map(|i| {
            some(i).then_some(u64::MAX - u64::from(i.unsigned_abs()))
        }))),
    );
    add(
        "float32",
        Arc::new(Float32Array::from_iter(
            rows().map(|i| some(i).then_some(0.5)),
        )),
    );
    add(
        "decimal",
        Arc::new(
            Decimal128Array::from_iter(rows().map(|i| some(i).then_some(i128::from(i) * 3)))
                .with_precision_and_scale(20, 2)
                .unwrap(),
        ),
    );
    add(
        "utc",
        Arc::new(
            TimestampMicrosecondArray::from_iter(
                rows().map(|i| some(i).then_some(i64::from(i) * 999_999)),
            )
            .with_timezone("UTC"),
        ),
    );
    add(
        "local",
        Arc::new(
            TimestampSecondArray::from_iter(rows().map(|i| some(i).then_some(i64::from(i) * 99)))
                .with_timezone_opt(None::<&str>),
        ),
    );
    add(
        "binary",
        Arc::new(BinaryArray::from_iter(
            rows().map(|i| some(i).then(|| i.to_be_bytes())),
        )),
    );
    add(
        "view",
        Arc::new(StringViewArray::from_iter(rows().map(|i| {
            some(i).then(|| format!("a view of more than twelve bytes {i}"))
        }))),
    );
    add(
        "dictionary",
        Arc::new(
            rows()
                .map(|i| some(i).then_some(["x", "yy", "zzz"][usize::try_from(i).unwrap() % 3]))
                .collect::<DictionaryArray<Int32Type>>(),
        ),
    );
    add(
        "list",
        Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>(
            rows().map(|i| {
                some(i).then(|| {
                    (0..i.unsigned_abs() % 4)
                        .map(|v| (v != 2).then_some(v))
                        .collect::<Vec<_>>()
                })
            }),
        )),
    );
    let inner: ArrayRef = Arc::new(Int32Array::from_iter(
        rows().map(|i| some(i + 1).then_some(i)),
    ));
    let parts = Fields::from(vec![Field::new("inner", DataType::Int32, true)]);
    add(
        "struct",
        Arc::new(StructArray::new(parts, vec![inner], None)),
    );
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

pub(crate) fn write(
    path: &Path,
    schema: &SchemaRef,
    batches: &[RecordBatch],
    options: &SinkOptions,
) -> Result<()> {
    let mut sink = create(path, schema, options)?;
    for batch in batches {
        sink.write(batch)?;
    }
    let written = sink.finish()?;
    assert_eq!(
        written.num_rows,
        batches.iter().map(|b| b.num_rows() as u64).sum::<u64>()
    );
    assert_eq!(written.num_bytes, std::fs::metadata(path).unwrap().len());
    Ok(())
}

pub(crate) fn drain(source: &mut dyn Source) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    while let Some(piece) = source.next_piece()? {
        for batch in piece.decode()? {
            assert_eq!(batch.schema().fields(), source.schema().fields());
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// All rows of a file as one batch.
pub(crate) fn read(path: &Path, options: &SourceOptions) -> Result<RecordBatch> {
    let mut source = open(path, options)?;
    let batches = drain(source.as_mut())?;
    Ok(concat_batches(source.schema(), &batches).unwrap())
}
