//! `darner init`: a job for files, guessed from what is in them.
//!
//! A file with a column (or two) in which no value comes twice is a dimension, if another file has a column whose values
//! are mostly among those. A file that refers to dimensions and is not one itself, or is not referred to, has facts.

use std::{
    collections::HashSet,
    fmt::Write,
    path::{Path, PathBuf},
};

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use darner_engine::{Error, Result as EngineResult, Source, SourceOptions, check_key_field};

use crate::{
    args::Init,
    context::Context,
    error::Result,
    files::input_paths,
    print,
    storage::{self, is_url, open, shown, write_file},
};

/// Rows of a file that are looked at.
const SAMPLE_ROWS: usize = 200_000;

/// The share of a column's values that a key must have for it to be taken for a reference.
const OVERLAP_MIN: f64 = 0.5;

/// Texts that mean null in much CSV, in the order in which they are looked for.
const NULL_TEXTS: [&str; 5] = ["NA", "NULL", "\\N", "N/A", "null"];

/// What was seen of a file.
struct Seen {
    path: PathBuf,
    name: String,
    null: Option<&'static str>,
    columns: Vec<Column>,
    num_rows: usize,
    is_whole: bool,
    /// Places of the columns of a key, if there is one.
    key: Option<Vec<usize>>,
}

struct Column {
    name: String,
    data_type: DataType,
    /// The distinct values, as text.
    values: HashSet<String>,
    num_nulls: usize,
    is_key_type: bool,
}

/// A column that refers to a dimension.
struct Reference {
    column: String,
    dimension: usize,
    overlap: f64,
}

pub(crate) fn run(context: &Context, args: &Init) -> Result<()> {
    if let Some(path) = &args.output
        && is_url(path)
    {
        return Err(Error::invalid(format!(
            "a job file is a file of this machine: file=`{}`",
            shown(path)
        ))
        .into());
    }
    if let Some(path) = &args.output
        && path.exists()
    {
        return Err(Error::invalid(format!(
            "a file is there already, and is not replaced: file=`{}`",
            path.display()
        ))
        .into());
    }
    let mut files: Vec<Seen> = Vec::new();
    for path in input_paths(&args.files)? {
        context.check_cancel()?;
        let mut seen = look(&path).map_err(|error| error.context("init"))?;
        let base = seen.name.clone();
        let mut number = 2;
        while files.iter().any(|other| other.name == seen.name) {
            seen.name = format!("{base}_{number}");
            number += 1;
        }
        files.push(seen);
    }
    let job = write(context, &files, args.output.as_deref());
    match &args.output {
        None => print::result(job.trim_end()),
        Some(path) => {
            write_file(path, job.as_bytes())?;
            print::note(
                context,
                format_args!(
                    "job written to {0}; darner check {0} says what it would do",
                    path.display()
                ),
            );
            Ok(())
        }
    }
}

/// Looks at the first rows of a file.
fn look(path: &Path) -> EngineResult<Seen> {
    let mut options = SourceOptions::default();
    let mut source = open(path, &options)?;
    let mut batches = sample(&mut *source)?;
    let null = NULL_TEXTS.into_iter().find(|text| {
        let mut columns = batches.iter().flat_map(RecordBatch::columns);
        is_text_format(path) && columns.any(|column| has_text(column, text))
    });
    if let Some(text) = null {
        options.csv.null_text.push(text.to_owned());
        source = open(path, &options)?;
        batches = sample(&mut *source)?;
    }
    let fields = source.schema().fields().iter();
    let mut columns: Vec<Column> = fields
        .map(|field| Column {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            values: HashSet::new(),
            num_nulls: 0,
            is_key_type: check_key_field(field).is_ok(),
        })
        .collect();
    for batch in &batches {
        for (column, array) in columns.iter_mut().zip(batch.columns()) {
            column.num_nulls += array.logical_nulls().map_or(0, |nulls| nulls.null_count());
            if column.is_key_type {
                texts(array, |text| {
                    column.values.insert(text);
                });
            }
        }
    }
    let num_rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut seen = Seen {
        name: name_of(path),
        path: path.to_owned(),
        null,
        columns,
        num_rows,
        is_whole: num_rows < SAMPLE_ROWS,
        key: None,
    };
    seen.key = find_key(&seen, &batches);
    Ok(seen)
}

fn sample(source: &mut dyn Source) -> EngineResult<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut left = SAMPLE_ROWS;
    while left > 0 {
        let Some(piece) = source.next_piece()? else {
            break;
        };
        for batch in piece.decode()? {
            let len = left.min(batch.num_rows());
            batches.push(batch.slice(0, len));
            left -= len;
        }
    }
    Ok(batches)
}

fn is_text_format(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    name.contains(".csv") || name.contains(".tsv")
}

fn has_text(column: &dyn Array, wanted: &str) -> bool {
    let mut is_there = false;
    if *column.data_type() == DataType::Utf8 {
        texts(column, |text| is_there |= text == wanted);
    }
    is_there
}

/// Every value that is not null, as text.
fn texts(column: &dyn Array, mut take: impl FnMut(String)) {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let Ok(formatter) = ArrayFormatter::try_new(column, &OPTIONS) else {
        return;
    };
    for row in 0..column.len() {
        if !column.is_null(row)
            && let Ok(text) = formatter.value(row).try_to_string()
        {
            take(text);
        }
    }
}

/// The name of a table for a file: its own, in letters that need no quotes.
fn name_of(path: &Path) -> String {
    let path = storage::name_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split('.').next().unwrap_or_default();
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    let mut name: String = stem.chars().map(letter).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        name.insert_str(0, "t_");
    }
    name
}

/// The columns that tell rows apart: one whose name says so, else the first one, else the first two that do together.
fn find_key(seen: &Seen, batches: &[RecordBatch]) -> Option<Vec<usize>> {
    if seen.num_rows == 0 {
        return None;
    }
    let may_be = |column: &Column| column.is_key_type && column.num_nulls == 0;
    let candidates: Vec<usize> = (0..seen.columns.len())
        .filter(|&idx| may_be(&seen.columns[idx]))
        .collect();
    let mut unique = candidates
        .iter()
        .copied()
        .filter(|&idx| seen.columns[idx].values.len() == seen.num_rows);
    let says_so = |idx: &usize| {
        let name = seen.columns[*idx].name.to_ascii_lowercase();
        ["id", "key", "code"]
            .iter()
            .any(|word| name.ends_with(word))
            || seen.name.starts_with(&name)
    };
    if let Some(idx) = unique.clone().find(says_so).or_else(|| unique.next()) {
        return Some(vec![idx]);
    }
    for (at, &first) in candidates.iter().enumerate() {
        for &second in &candidates[at + 1..] {
            let most = seen.columns[first].values.len() * seen.columns[second].values.len();
            if most >= seen.num_rows && are_unique(batches, [first, second], seen.num_rows) {
                return Some(vec![first, second]);
            }
        }
    }
    None
}

fn are_unique(batches: &[RecordBatch], columns: [usize; 2], num_rows: usize) -> bool {
    let mut pairs: HashSet<(String, String)> = HashSet::with_capacity(num_rows);
    for batch in batches {
        let mut parts = columns.map(|column| {
            let mut values = Vec::with_capacity(batch.num_rows());
            texts(batch.column(column), |text| values.push(text));
            values
        });
        let [first, second] = &mut parts;
        for pair in first.drain(..).zip(second.drain(..)) {
            if !pairs.insert(pair) {
                return false;
            }
        }
    }
    true
}

/// The columns of a file that refer to the single-column keys of others.
fn references(files: &[Seen], from: usize) -> Vec<Reference> {
    let mut found: Vec<Reference> = Vec::new();
    for (place, column) in files[from].columns.iter().enumerate() {
        if !column.is_key_type || column.values.is_empty() {
            continue;
        }
        // A key refers to another table only as a part of it, or not at all.
        if files[from].key.as_deref() == Some(&[place]) {
            continue;
        }
        let mut best: Option<Reference> = None;
        for (dimension, other) in files.iter().enumerate() {
            let Some([key]) = other.key.as_deref() else {
                continue;
            };
            let key = &other.columns[*key];
            if dimension == from || !are_comparable(&column.data_type, &key.data_type) {
                continue;
            }
            let (small, name) = (
                column.name.to_ascii_lowercase(),
                key.name.to_ascii_lowercase(),
            );
            let singular = other.name.trim_end_matches('s');
            let is_named = small == name || small.contains(singular);
            // Numbers from 1 on are in every table of numbers.
            if !key.data_type.is_string() && !is_named {
                continue;
            }
            let num_known = column.values.intersection(&key.values).count();
            let overlap = ratio(num_known, column.values.len());
            let is_better = best.as_ref().is_none_or(|best| overlap > best.overlap);
            if overlap >= OVERLAP_MIN && is_better {
                best = Some(Reference {
                    column: column.name.clone(),
                    dimension,
                    overlap,
                });
            }
        }
        found.extend(best);
    }
    found
}

fn are_comparable(left: &DataType, right: &DataType) -> bool {
    (left.is_string() && right.is_string())
        || (left.is_integer() && right.is_integer())
        || left == right
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share needs no more than 53 bits"
)]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// The job as text.
fn write(context: &Context, files: &[Seen], output: Option<&Path>) -> String {
    let all: Vec<Vec<Reference>> = (0..files.len())
        .map(|from| references(files, from))
        .collect();
    let is_referred = |idx: usize| {
        all.iter()
            .flatten()
            .any(|reference| reference.dimension == idx)
    };
    let is_facts = |idx: usize| !is_referred(idx) && !all[idx].is_empty();
    let mut job = String::new();
    // Writing to a text never fails.
    let _ = writeln!(
        job,
        "# A job for {} files, guessed from what is in them: look at keys, joins and types.\n\
         # darner check says what it would do, darner run does it.\n\n\
         # Where tables are kept. ${{NAME}} and ${{NAME:-default}} are taken from the environment or from --set NAME=VALUE.\n\
         store = \"{}\"",
        files.len(),
        context.store_dir.display()
    );
    for (idx, file) in files.iter().enumerate() {
        if !is_facts(idx) {
            write_dimension(&mut job, file, output);
        }
    }
    for (idx, file) in files.iter().enumerate().filter(|(idx, _)| is_facts(*idx)) {
        write_enrichment(&mut job, files, file, &all[idx], output);
    }
    job
}

fn write_dimension(job: &mut String, file: &Seen, output: Option<&Path>) {
    let rows = if file.is_whole { "" } else { "the first " };
    let Some(key) = &file.key else {
        let _ = writeln!(
            job,
            "\n# {}: no one or two columns tell {rows}{} rows apart, and no column refers to another file.",
            shown(&file.path),
            file.num_rows
        );
        return;
    };
    let names: Vec<String> = key
        .iter()
        .map(|&idx| quoted(&file.columns[idx].name))
        .collect();
    let key = match names.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let _ = writeln!(
        job,
        "\n[dimension.{}]\nfrom = {}\nkey = {key}  # no value comes twice in {rows}{} rows",
        file.name,
        quoted(&path_in_job(&file.path, output)),
        file.num_rows
    );
    write_null(job, file);
}

fn write_enrichment(
    job: &mut String,
    files: &[Seen],
    file: &Seen,
    references: &[Reference],
    output: Option<&Path>,
) {
    let _ = writeln!(
        job,
        "\n[enrich.{}]\nfrom = {}\njoin = [",
        file.name,
        quoted(&path_in_job(&file.path, output))
    );
    for reference in references {
        let other = &files[reference.dimension];
        let Some([key]) = other.key.as_deref() else {
            continue;
        };
        let key = &other.columns[*key].name;
        let num_joins = references
            .iter()
            .filter(|reference| files[reference.dimension].name == other.name)
            .count();
        // Columns of one table that is joined twice are told apart by the alias.
        let alias = if num_joins > 1 {
            format!(
                " as {}",
                join_name(&format!("{}_{}", reference.column, other.name))
            )
        } else {
            String::new()
        };
        let on = if *key == reference.column {
            join_name(key)
        } else {
            format!("{} = {}", join_name(&reference.column), join_name(key))
        };
        let _ = writeln!(
            job,
            "  {},  # {:.0} % of the values are keys of {}",
            quoted(&format!("{}{alias} on {on}", other.name)),
            reference.overlap * 100.0,
            other.name
        );
    }
    let _ = writeln!(
        job,
        "]\nto = \"out/{}.parquet\"  # or a directory, \"out/{}/\", with a file for each input",
        file.name, file.name
    );
    write_null(job, file);
    let _ = writeln!(
        job,
        "# max_miss_rate = 0.05  # exit code 4 if a join misses more, and the last output stays\n\n\
         # [check.{name}]  # a query for rows that must not be there: exit code 4 if it finds one\n\
         # query = \"SELECT * FROM {name} WHERE ...\"",
        name = file.name
    );
}

fn write_null(job: &mut String, file: &Seen) {
    if let Some(null) = file.null {
        let _ = writeln!(job, "null = {}  # a text that means null", quoted(null));
    }
}

/// A path as the job file has to name it: relative to where the job file is.
fn path_in_job(path: &Path, output: Option<&Path>) -> String {
    if is_url(path) {
        return path.display().to_string();
    }
    let parent = output.and_then(Path::parent).unwrap_or(Path::new(""));
    if parent.as_os_str().is_empty() {
        return path.display().to_string();
    }
    let is_beside = path.strip_prefix(parent).ok();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    is_beside.unwrap_or(&absolute).display().to_string()
}

/// A text in TOML. A `${` in a file's name is no variable.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace("${", "$${")).to_string()
}

/// A name in the text of a join.
fn join_name(name: &str) -> String {
    let is_plain = name
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-'));
    let is_word = ["as", "on", "select", "on_miss"].contains(&name.to_ascii_lowercase().as_str());
    if is_plain && !is_word && !name.is_empty() {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
