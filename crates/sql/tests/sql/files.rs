//! Runs every file below `slt/`: statements of SQL and what they answer, in the format of the crate `sqllogictest`.
//!
//! Each file runs several times, each time on a new and empty place (a [`Variant`]):
//!
//! | variant | tables | engine, label |
//! |---|---|---|
//! | `memory` | DataFusion's own, in memory: the oracle for the others | `memory` |
//! | `store` | a store's | `store`, `lookup` |
//! | `hash` | a store's, with DataFusion's own joins instead of lookups | `store`, `hash` |
//!
//! The first lines of a file may say otherwise: `# variants: store, hash` runs it in those alone, `# page_bytes: 1024` cuts
//! smaller pages, `# read_only: true` has the queries read another opening of the store. One record is kept from some of
//! them by `onlyif store`, `skipif hash` and so on: so `EXPLAIN` of a scan is for `onlyif store`.
//!
//! Beside SQL there are statements that work in every variant (see `database.rs`):
//!
//! ```text
//! .upsert TABLE KEY column[, column] AS SELECT ...    makes the table if it is not there; newer rows of a key win
//! .delete TABLE AS SELECT key columns ...
//! .compact TABLE
//! .checkpoint
//! ```
//!
//! Types of columns: `T` text, `I` integer, `R` float or decimal, `B` boolean, `D` date or time, `P` timestamp, `?` others.
//! `${DATA}` is the directory of sample data and `$__TEST_DIR__` one that is the file's own, after
//! `control substitution on`.
//!
//! `DARNER_SLT=part/of/name` runs only such files; with `DARNER_SLT_UPDATE=1` the answers are written into them instead of
//! compared, to be read and judged by whoever writes the file. Use `files::in_memory` for that where you can.

use std::path::{Path, PathBuf};

use sqllogictest::{Runner, strict_column_validator};

use crate::{
    database::{Database, Place},
    print::Column,
};

/// The kinds of places where files run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Memory,
    Store,
    Hash,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Store => "store",
            Self::Hash => "hash",
        }
    }

    /// By which records say that they are for it, beside its engine's name.
    fn label(self) -> Option<&'static str> {
        match self {
            Self::Memory => None,
            Self::Store => Some("lookup"),
            Self::Hash => Some("hash"),
        }
    }
}

/// What the first lines of a file ask for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Header {
    variants: Option<Vec<String>>,
    pub(crate) page_bytes: Option<usize>,
    pub(crate) is_read_only: bool,
}

impl Header {
    fn read(path: &Path) -> Self {
        let mut header = Self::default();
        let text = std::fs::read_to_string(path).unwrap();
        for line in text.lines().take_while(|line| line.starts_with('#')) {
            let Some((name, value)) = line.trim_start_matches(['#', ' ']).split_once(':') else {
                continue;
            };
            let value = value.trim();
            match name.trim() {
                "variants" => {
                    let names = value.split(',').map(|name| name.trim().to_owned());
                    header.variants = Some(names.collect());
                }
                "page_bytes" => header.page_bytes = Some(value.parse().unwrap()),
                "read_only" => header.is_read_only = value.parse().unwrap(),
                _ => {}
            }
        }
        header
    }

    fn has(&self, variant: Variant) -> bool {
        let is_wanted = |names: &Vec<String>| names.iter().any(|name| name == variant.name());
        self.variants.as_ref().is_none_or(is_wanted)
    }
}

#[test]
fn in_memory() {
    run_all(Variant::Memory);
}

#[test]
fn in_a_store() {
    run_all(Variant::Store);
}

#[test]
fn in_a_store_with_hash_joins() {
    run_all(Variant::Hash);
}

fn run_all(variant: Variant) {
    let mut paths = Vec::new();
    find(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/slt"),
        &mut paths,
    );
    paths.sort();
    let wanted = std::env::var("DARNER_SLT").unwrap_or_default();
    let (mut num_run, mut failures) = (0, Vec::new());
    for path in paths {
        let header = Header::read(&path);
        if !path.to_string_lossy().contains(&wanted) || !header.has(variant) {
            continue;
        }
        num_run += 1;
        if let Err(error) = run(&path, variant, &header) {
            failures.push(error);
        }
    }
    assert!(num_run > 0 || !wanted.is_empty(), "no files were found");
    assert!(
        failures.is_empty(),
        "{} of {num_run} files failed with variant `{}`\n\n{}",
        failures.len(),
        variant.name(),
        failures.join("\n")
    );
}

fn find(dir: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            paths.push(path);
        }
    }
}

/// The message has the file, the line and what was different.
fn run(path: &Path, variant: Variant, header: &Header) -> Result<(), String> {
    let place = Place::new(variant, header);
    let mut runner = Runner::new(|| {
        let database = Database::new(&place);
        async { Ok(database) }
    });
    runner.with_column_validator(strict_column_validator::<Column>);
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    runner.set_var("DATA".to_owned(), data.to_string_lossy().into_owned());
    if let Some(label) = variant.label() {
        runner.add_label(label);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let is_update = std::env::var_os("DARNER_SLT_UPDATE").is_some();
    runtime.block_on(async {
        if is_update {
            runner
                .update_test_file(
                    path,
                    " ",
                    sqllogictest::default_validator,
                    sqllogictest::default_normalizer,
                    strict_column_validator::<Column>,
                )
                .await
                .map_err(|error| format!("{}: {error}", path.display()))
        } else {
            runner
                .run_file_async(path)
                .await
                .map_err(|error| error.display(false).to_string())
        }
    })
}
