//! Runs statements, and opens the store as each of them needs it.
//!
//! A statement that only reads takes a snapshot, so that it waits for nobody and nobody waits for it. One that writes
//! has the store for itself until it is done, and no longer: between two statements of a prompt others may write.

use std::{fs, io, sync::Arc};

use arrow_array::{RecordBatch, UInt64Array};
use arrow_cast::cast;
use arrow_schema::DataType;
use darner_engine::{Error, ErrorKind};
use darner_sql::{Answer, Needs, Plan, Session, SessionOptions};
use indicatif::HumanCount;

use crate::{
    args::Output,
    context::{Context, close_shared},
    error::{Failure, Result},
    files::print_rows,
    print,
    storage::client,
};

/// What statements may do beyond reading tables.
#[derive(Clone, Copy)]
pub(super) struct Rights {
    pub(super) may_write: bool,
    pub(super) may_name_files: bool,
}

/// What a statement has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) answer: Answer,
    /// Rows that were given or written.
    pub(super) num_rows: u64,
}

/// A session, and the store that it looks at.
pub(super) struct Runner<'c> {
    context: &'c Context,
    session: Session,
    rights: Rights,
    remedies: [&'static str; 2],
}

impl<'c> Runner<'c> {
    /// Starts a session. The remedies tell what to do when it refuses to write, and to name a file.
    pub(super) fn new(
        context: &'c Context,
        rights: Rights,
        remedies: [&'static str; 2],
    ) -> Result<Self> {
        let mut options = SessionOptions::default();
        options.num_threads = context.num_threads;
        options.read_only = !rights.may_write;
        options.allow_files = rights.may_name_files;
        options.write_remedy = remedies[0].into();
        options.file_remedy = remedies[1].into();
        options.remote = rights.may_name_files.then(client);
        options.cancel = Some(Arc::clone(context.cancel()));
        let session = Session::with_options(options)?;
        Ok(Self {
            context,
            session,
            rights,
            remedies,
        })
    }

    /// Refuses what a command of the prompt does with files, if statements may not do it.
    pub(super) fn check_files(&self, command: &str, is_write: bool) -> Result<()> {
        let [write_remedy, file_remedy] = self.remedies;
        let remedy = if !self.rights.may_name_files {
            file_remedy
        } else if is_write && !self.rights.may_write {
            write_remedy
        } else {
            return Ok(());
        };
        Err(Error::invalid(format!(
            "command names a file, which is not allowed here: command=`{command}`; {remedy}"
        ))
        .into())
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Runs all statements of a text, one after the other, until one fails.
    pub(super) fn run_script(&self, sql: &str, output: &Output) -> Result<()> {
        let statements = self.session.split(sql)?;
        if statements.is_empty() {
            return Err(Error::invalid("there is no statement").into());
        }
        let num_answers = statements.iter().filter(|s| s.gives_rows).count();
        if let (Some(path), 2..) = (&output.output, num_answers)
            && path.as_os_str() != "-"
        {
            return Err(Error::invalid(format!(
                "a file takes the rows of one statement: statements=`{num_answers}` file=`{}`",
                path.display()
            ))
            .into());
        }
        for statement in &statements {
            let done = self.run(&statement.text, output);
            let done = done.map_err(|failure| match failure {
                Failure::Error(error) if statements.len() > 1 => {
                    Failure::Error(error.context(format!("statement at line {}", statement.line)))
                }
                other => other,
            })?;
            match done.answer {
                Answer::Count if self.context.json => {
                    print::result(serde_json::json!({ "rows": done.num_rows }))?;
                }
                Answer::Count => {
                    let rows = count_text(done.num_rows);
                    print::note(self.context, format_args!("{rows} written"));
                }
                Answer::Rows | Answer::Nothing => {}
            }
        }
        Ok(())
    }

    /// Looks at the store as it is now.
    pub(super) fn look(&self) -> Result<()> {
        // Files alone need no store, and a directory that is empty can become one.
        let is_there = match fs::read_dir(&self.context.store_dir) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if is_there {
            let store = self.context.read_store()?;
            self.session.register_store(Arc::new(store));
        }
        Ok(())
    }

    /// Runs one statement and prints its rows.
    pub(super) fn run(&self, sql: &str, output: &Output) -> Result<Done> {
        self.look()?;
        let plan = self.session.plan(sql).map_err(|error| {
            if error.kind() == ErrorKind::NotFound && !self.context.has_store() {
                let dir = self.context.store_dir.display();
                error.context(format!("there is no store in `{dir}`"))
            } else {
                error
            }
        })?;
        let needs = plan.needs();
        if needs == Needs::Read {
            return self.finish(plan, output);
        }
        drop(plan);
        let store = if needs == Needs::Create {
            self.context.open_store()?
        } else {
            self.context.open_existing_store()?
        };
        let store = Arc::new(store);
        self.session.register_store(Arc::clone(&store));
        // Planned anew: another writer may have been here since.
        let plan = self.session.plan(sql).map_err(Failure::from);
        let done = plan.and_then(|plan| self.finish(plan, output));
        let looked = self.look();
        close_shared(store);
        let done = done.map_err(|failure| match failure {
            Failure::Error(error) if error.kind() == ErrorKind::Cancelled => {
                let error = Error::new(
                    ErrorKind::Cancelled,
                    "statement was cancelled, perhaps after it was committed; look before you run it again",
                );
                Failure::Error(error)
            }
            other => other,
        })?;
        looked?;
        Ok(done)
    }

    fn finish(&self, plan: Plan<'_>, output: &Output) -> Result<Done> {
        let answer = plan.answer();
        let rows = plan.run()?;
        if answer == Answer::Rows {
            let schema = Arc::clone(rows.schema());
            let mut num_rows = 0;
            let rows = rows.map(|rows| {
                let rows = rows?;
                num_rows += rows.num_rows() as u64;
                Ok(rows)
            });
            print_rows(self.context, &schema, rows, output)?;
            return Ok(Done { answer, num_rows });
        }
        let mut num_rows = 0;
        for rows in rows {
            let rows = rows?;
            if answer == Answer::Count {
                num_rows += count_of(&rows)?;
            }
        }
        Ok(Done { answer, num_rows })
    }
}

/// The count that a statement without rows gives as one.
fn count_of(rows: &RecordBatch) -> Result<u64> {
    let wrong = || Error::internal("statement did not say how many rows it has written");
    let column = rows.columns().first().ok_or_else(wrong)?;
    let counts = cast(column, &DataType::UInt64).map_err(|error| wrong().with_source(error))?;
    let counts = counts.as_any().downcast_ref::<UInt64Array>();
    Ok(counts.ok_or_else(wrong)?.iter().flatten().sum())
}

/// `1 row`, `2 rows`.
pub(super) fn count_text(num_rows: u64) -> String {
    let ending = if num_rows == 1 { "" } else { "s" };
    format!("{} row{ending}", HumanCount(num_rows))
}
