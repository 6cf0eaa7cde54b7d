//! How values are written in the files: as in DataFusion's own such files, so that anybody can read them.

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float16Type, Float32Type, Float64Type},
};
use arrow_schema::{DataType, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use sqllogictest::ColumnType;

/// What a column holds, in one letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Boolean,
    Date,
    Integer,
    Timestamp,
    Float,
    Text,
    Other,
}

impl ColumnType for Column {
    fn from_char(letter: char) -> Option<Self> {
        Some(match letter {
            'B' => Self::Boolean,
            'D' => Self::Date,
            'I' => Self::Integer,
            'P' => Self::Timestamp,
            'R' => Self::Float,
            'T' => Self::Text,
            '?' => Self::Other,
            _ => return None,
        })
    }

    fn to_char(&self) -> char {
        match self {
            Self::Boolean => 'B',
            Self::Date => 'D',
            Self::Integer => 'I',
            Self::Timestamp => 'P',
            Self::Float => 'R',
            Self::Text => 'T',
            Self::Other => '?',
        }
    }
}

/// The letters of a result.
pub(crate) fn columns(schema: &Schema) -> Vec<Column> {
    let types = schema.fields().iter().map(|field| field.data_type());
    types.map(column).collect()
}

fn column(data_type: &DataType) -> Column {
    match data_type {
        DataType::Boolean => Column::Boolean,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Column::Text,
        DataType::Date32 | DataType::Date64 | DataType::Time32(_) | DataType::Time64(_) => {
            Column::Date
        }
        DataType::Timestamp(..) => Column::Timestamp,
        DataType::Dictionary(_, value) => column(value),
        data_type if data_type.is_integer() => Column::Integer,
        data_type if data_type.is_floating() || data_type.is_decimal() => Column::Float,
        _ => Column::Other,
    }
}

/// The rows of a result. A plan is a row for each of its lines.
pub(crate) fn rows(schema: &Schema, batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let is_plan = schema.fields().len() == 2 && schema.field(0).name() == "plan_type";
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            if is_plan {
                plan_rows(batch, row, &mut rows);
            } else {
                rows.push(batch.columns().iter().map(|c| value(c, row)).collect());
            }
        }
    }
    rows
}

/// Numbers the lines of a plan, and shows how far each is indented: blanks at the beginning of a line would be lost.
fn plan_rows(batch: &RecordBatch, row: usize, rows: &mut Vec<Vec<String>>) {
    let mut name = value(batch.column(0), row);
    for (i, line) in (1..).zip(value(batch.column(1), row).lines()) {
        let text = line.trim_start();
        let dashes = "-".repeat(line.len() - text.len());
        let line = format!("{i:02}){dashes}{text}");
        if i == 1 {
            rows.push(vec![std::mem::take(&mut name), line]);
        } else {
            rows.push(vec![line]);
        }
    }
}

fn value(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Null => "NULL".to_owned(),
        DataType::Float16 => float(column.as_primitive::<Float16Type>().value(row).to_f64(), 4),
        DataType::Float32 => float(
            f64::from(column.as_primitive::<Float32Type>().value(row)),
            7,
        ),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), 12),
        _ => {
            let options = FormatOptions::default()
                .with_null("NULL")
                .with_duration_format(DurationFormat::Pretty);
            let formatter = ArrayFormatter::try_new(column, &options).unwrap();
            match formatter.value(row).to_string() {
                text if text.is_empty() => "(empty)".to_owned(),
                text => text,
            }
        }
    }
}

/// Rounds to so many digits: the order in which threads add numbers up changes the last ones.
fn float(value: f64, num_digits: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let rounded: f64 = format!("{value:.*e}", num_digits - 1).parse().unwrap();
    if rounded != 0.0 && !(1e-7..1e16).contains(&rounded.abs()) {
        return format!("{rounded:e}");
    }
    rounded.to_string()
}
