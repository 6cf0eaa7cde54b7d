//! What is known of a view.

use darner_store::TableSnapshot;
use datafusion::error::Result;

use super::{
    define::{FactsKind, Seen, StoredView, TableVersion},
    prepared::Prepared,
    refresh::Views,
};
use crate::error::to_datafusion;

/// A view, and what it has seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ViewInfo {
    /// Its name.
    pub name: String,
    /// Its query, with whole paths.
    pub query: String,
    /// Whether new rows alone refresh it.
    pub is_incremental: bool,
    /// Why not, if not.
    pub reason: Option<String>,
    /// Of a view of a table: how rows that were changed or deleted are taken in.
    pub changes: Option<String>,
    /// Its facts: a path or pattern, a table, or what programs push.
    pub facts: Option<String>,
    /// Whether the facts are rows that programs push.
    pub is_pushed: bool,
    /// Groups that are stored, or rows of a view that is computed anew each time.
    pub num_groups: u64,
    /// Stored bytes.
    pub num_bytes: u64,
    /// The number and time of the commit that refreshed it last.
    pub version: darner_store::Version,
    /// Files whose rows are counted.
    pub files: Vec<String>,
    /// Rows that programs have pushed.
    pub num_pushed_rows: u64,
    /// What the last of them said how far it has come.
    pub watermark: Option<Vec<u8>>,
    /// The version of the table of facts whose rows are counted.
    pub facts_version: Option<u64>,
    /// The dimensions that rows were joined with.
    pub dimensions: Vec<DimensionInfo>,
    /// The functions whose states are stored.
    pub aggregates: Vec<String>,
}

/// A dimension that rows of a view were joined with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DimensionInfo {
    /// The table.
    pub name: String,
    /// Its version when rows were joined with it first since the view was built.
    pub first_version: u64,
    /// Its version when rows were joined with it last.
    pub last_version: u64,
    /// Its version now; `None` if it is gone.
    pub version_now: Option<u64>,
}

impl Views {
    /// What is known of a view.
    pub(crate) async fn info(&self, name: &str) -> Result<ViewInfo> {
        let store = self.handle.store();
        let view = StoredView::get(&store, name).map_err(to_datafusion)?;
        let (seen, version) = view.seen(&store).map_err(to_datafusion)?;
        let (mut aggregates, mut changes) = (Vec::new(), None);
        if view.definition.is_incremental() {
            let prepared = Prepared::of(&self.handle, &view).await?;
            let functions = prepared.aggregation.functions().iter();
            aggregates.extend(functions.map(|function| function.name().to_owned()));
            if view.definition.facts_kind() == Some(FactsKind::Table) {
                changes = Some(match &prepared.aggregation.retraction {
                    Ok(_) => "changed and deleted rows are taken back from their groups".to_owned(),
                    Err(reason) => format!(
                        "groups of changed and deleted rows are computed anew, from all rows, because {reason}"
                    ),
                });
            }
        }
        let dimensions = self.dimensions(&seen);
        let definition = view.definition;
        Ok(ViewInfo {
            num_groups: view.table.num_rows().map_err(to_datafusion)?,
            num_bytes: view.table.num_bytes(),
            version,
            is_incremental: definition.is_incremental(),
            is_pushed: definition.facts_kind() == Some(FactsKind::Pushed),
            facts: definition.facts.map(|facts| facts.relation.name),
            files: seen.files.iter().map(|file| file.path.clone()).collect(),
            num_pushed_rows: seen.num_pushed_rows,
            watermark: seen.watermark(),
            facts_version: seen.facts.map(|facts| facts.version),
            dimensions,
            aggregates,
            changes,
            name: view.name,
            query: definition.query,
            reason: definition.reason,
        })
    }

    fn dimensions(&self, seen: &Seen) -> Vec<DimensionInfo> {
        let store = self.handle.store();
        let number = |table: TableSnapshot| TableVersion::of(&table).version;
        let dimensions = seen.dimensions.iter().map(|seen| DimensionInfo {
            name: seen.name.clone(),
            first_version: seen.first.version,
            last_version: seen.last.version,
            version_now: store.table(&seen.name).ok().map(number),
        });
        dimensions.collect()
    }
}

/// What is known of a view, as lines of a name and a text.
pub(crate) async fn lines(views: &Views, name: &str) -> Result<Vec<(String, String)>> {
    let info = views.info(name).await?;
    Ok(info.lines())
}

impl ViewInfo {
    /// How the view is refreshed, and what it has seen, as lines of a name and a text.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![
            ("view".to_owned(), self.name.clone()),
            ("query".to_owned(), self.query.clone()),
        ];
        let mut line = |name: &str, text: String| lines.push((name.to_owned(), text));
        match &self.reason {
            None => line(
                "refresh",
                "incremental: new rows are merged with the states of their groups".to_owned(),
            ),
            Some(reason) => line("refresh", format!("in full each time, because {reason}")),
        }
        if let Some(facts) = &self.facts {
            let what = match (self.is_pushed, self.facts_version) {
                (true, _) => "rows that programs push",
                (false, Some(_)) => "a table of the store",
                (false, None) => "files",
            };
            line("facts", format!("`{facts}`, {what}"));
        }
        if let Some(changes) = &self.changes {
            line("changes", changes.clone());
        }
        if !self.aggregates.is_empty() {
            line("states", self.aggregates.join(", "));
        }
        if !self.files.is_empty() {
            line("files", format!("{} counted", self.files.len()));
        }
        if self.num_pushed_rows > 0 {
            line("pushed", format!("{} rows", self.num_pushed_rows));
        }
        if let Some(version) = self.facts_version {
            line("seen", format!("the facts up to version {version}"));
        }
        for dimension in &self.dimensions {
            line("dimension", dimension.text());
        }
        line("groups", self.num_groups.to_string());
        line("version", self.version.number.to_string());
        lines
    }
}

impl DimensionInfo {
    /// Which versions of the dimension rows were joined with, in words.
    pub fn text(&self) -> String {
        let Self {
            name,
            first_version: first,
            last_version: last,
            ..
        } = self;
        let seen = if first == last {
            format!("`{name}` as of version {first}")
        } else {
            format!("`{name}` as of versions {first} to {last}, each row as of its refresh")
        };
        match self.version_now {
            None => format!("{seen}; it is gone now"),
            Some(now) if now == *last => seen,
            Some(now) => format!("{seen}; it is version {now} now"),
        }
    }
}
