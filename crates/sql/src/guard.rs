//! What a statement would do beyond reading tables, and whether its session lets it.
//!
//! It is the plan that is looked at, with all that is inside it: what `EXPLAIN ANALYZE` would run, what `PREPARE`
//! keeps, subqueries, views. Files that a statement reads by naming them in `FROM` are another matter: planning opens
//! them, so they are refused where names are looked up, see `files.rs`.

use darner_engine::{Error, Result};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    datasource::source_as_provider,
    logical_expr::{DdlStatement, LogicalPlan, Statement},
};

use crate::{
    error::from_datafusion, session_options::SessionOptions, table::StoreTable, view::ViewNode,
};

/// Settings that a statement may change where it may not name files: they say how results look and how plans are made.
/// The others say how much memory may be used, how deep statements may be, and where files go.
const FREE_SETTINGS: [&str; 5] = [
    "datafusion.execution.time_zone",
    "datafusion.explain.",
    "datafusion.format.",
    "datafusion.optimizer.",
    "darner.lookup_join",
];

/// What a statement needs of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// To read it as it is now, if that much.
    #[default]
    Read,
    /// To change tables that are there.
    Write,
    /// To make a table, and the store if there is none yet.
    Create,
}

/// What a statement would do.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) needs: Needs,
    /// What would change a table or a file.
    write: Option<String>,
    /// What would read or write files.
    file: Option<String>,
    /// The setting that would change.
    setting: Option<String>,
}

impl Effects {
    /// Finds out what a plan would do. `is_stored` says whether the table that it may drop is one of the store.
    pub(crate) fn of(plan: &LogicalPlan, is_stored: bool) -> Result<Self> {
        let mut effects = Self::default();
        plan.apply_with_subqueries(|node| {
            effects.add(node, is_stored);
            Ok(TreeNodeRecursion::Continue)
        })
        .map_err(from_datafusion)?;
        Ok(effects)
    }

    fn add(&mut self, node: &LogicalPlan, is_stored: bool) {
        if let Some(view) = ViewNode::of(node) {
            if view.needs() > Needs::Read {
                self.writes(view.what(), view.needs());
            }
            if let Some(file) = &view.file {
                self.names_file(file);
            }
            return;
        }
        match node {
            LogicalPlan::Dml(dml) => {
                let target = source_as_provider(&dml.target);
                if target.is_ok_and(|target| target.is::<StoreTable>()) {
                    self.writes(dml.op.name(), Needs::Write);
                } else {
                    // A file, as far as can be known.
                    self.writes(dml.op.name(), Needs::Read);
                    self.names_file(&format!("{} of `{}`", dml.op.name(), dml.table_name));
                }
            }
            LogicalPlan::Copy(copy) => {
                self.writes("COPY", Needs::Read);
                self.names_file(&format!("COPY TO '{}'", copy.output_url));
            }
            LogicalPlan::Ddl(ddl) => self.add_ddl(ddl, is_stored),
            LogicalPlan::Statement(Statement::SetVariable(set)) => self.sets(&set.variable),
            LogicalPlan::Statement(Statement::ResetVariable(reset)) => self.sets(&reset.variable),
            _ => {}
        }
    }

    fn add_ddl(&mut self, ddl: &DdlStatement, is_stored: bool) {
        match ddl {
            DdlStatement::CreateExternalTable(create) => self.names_file(&format!(
                "CREATE EXTERNAL TABLE ... LOCATION '{}'",
                create.locations.join("', '")
            )),
            DdlStatement::CreateMemoryTable(_) => self.writes("CREATE TABLE", Needs::Create),
            DdlStatement::DropTable(_) if is_stored => self.writes("DROP TABLE", Needs::Write),
            // These are gone with the session.
            DdlStatement::DropTable(_)
            | DdlStatement::CreateView(_)
            | DdlStatement::DropView(_)
            | DdlStatement::CreateCatalogSchema(_)
            | DdlStatement::CreateCatalog(_)
            | DdlStatement::DropCatalogSchema(_) => {}
            DdlStatement::CreateIndex(_)
            | DdlStatement::CreateFunction(_)
            | DdlStatement::DropFunction(_) => self.writes(ddl.name(), Needs::Read),
        }
    }

    fn writes(&mut self, what: &str, needs: Needs) {
        self.needs = self.needs.max(needs);
        self.write.get_or_insert_with(|| what.to_owned());
    }

    fn names_file(&mut self, what: &str) {
        self.file.get_or_insert_with(|| what.to_owned());
    }

    fn sets(&mut self, setting: &str) {
        let name = setting.to_ascii_lowercase();
        if !FREE_SETTINGS.iter().any(|free| name.starts_with(free)) {
            self.setting.get_or_insert(name);
        }
    }

    /// Refuses what the session's options forbid.
    pub(crate) fn check(&self, options: &SessionOptions) -> Result<()> {
        if let Some(what) = self.write.as_ref().filter(|_| options.read_only) {
            return Err(Error::invalid(format!(
                "statement would write, which is not allowed here: statement=`{what}`; {}",
                options.write_remedy
            )));
        }
        if options.allow_files {
            return Ok(());
        }
        if let Some(what) = &self.file {
            return Err(Error::invalid(format!(
                "statement names a file, which is not allowed here: statement=`{what}`; {}",
                options.file_remedy
            )));
        }
        match &self.setting {
            None => Ok(()),
            Some(setting) => Err(Error::invalid(format!(
                "setting cannot be changed where files are not allowed: setting=`{setting}`; {}",
                options.file_remedy
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
