//! Gives the rows of files to a view, and goes on where it was killed.
//!
//! ```text
//! cargo run --release -p darner-sql --example push -- STORE VIEW QUERY ROWS FILES...
//! ```
//!
//! The view is made if there is none: QUERY names the rows `facts`. They are given batch by batch and counted, at the
//! latest, when ROWS of them wait. The watermark is the number of rows that were given, so the files must be the same
//! ones, in the same order, each time.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::{error::Error, path::PathBuf, sync::Arc};

use darner_engine::{SourceOptions, open_all};
use darner_sql::{Session, SessionOptions};
use darner_store::{Store, StoreOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, view, query, commit_rows, files @ ..] = &args[..] else {
        return Err("usage: push STORE VIEW QUERY ROWS FILES...".into());
    };
    let commit_rows: usize = commit_rows.parse()?;
    let store = Arc::new(Store::open(store, StoreOptions::default())?);
    let mut options = SessionOptions::default();
    options.read_only = false;
    let session = Session::with_options(options)?;
    session.register_store(store);

    let files = files.iter().map(PathBuf::from).collect();
    let mut source = open_all(files, &SourceOptions::default())?;
    if !session.view_names().contains(view) {
        session.create_pushed_view(view, query, "facts", source.schema())?;
    }
    let mut writer = session.view_writer(view)?;
    let counted = match writer.watermark() {
        None => 0,
        Some(bytes) => u64::from_le_bytes(bytes.try_into()?),
    };
    println!("{counted} rows are counted");
    let mut at = 0;
    while let Some(piece) = source.next_piece()? {
        for rows in piece.decode()? {
            let num_rows = rows.num_rows() as u64;
            let known = counted.saturating_sub(at).min(num_rows);
            at += num_rows;
            if known == num_rows {
                continue;
            }
            let known = usize::try_from(known)?;
            let new = rows.slice(known, rows.num_rows() - known);
            writer.push(&new, &at.to_le_bytes())?;
            if writer.num_waiting() >= commit_rows {
                writer.commit()?;
            }
        }
    }
    if at < counted {
        let told = format!(
            "{counted} rows were counted before, and the files have {at}; give all of them, in the same order"
        );
        return Err(told.into());
    }
    writer.commit()?;
    println!("{at} rows are counted");
    Ok(())
}
