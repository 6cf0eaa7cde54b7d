//! `darner view`.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum View {
    /// Make a view, and count all rows that there are.
    #[command(
        after_help = "Files stand in single quotes: paths, directories or patterns. Those that do not begin at the root are \
                            taken from the current directory, now and at every refresh.\n\n\
                            Examples:\n  darner view create by_carrier \"SELECT carrier, count(*) AS flights FROM \
                            'flights/*.parquet' GROUP BY carrier\"\n  \
                            darner view create by_airline \"SELECT a.name, sum(f.distance) AS miles FROM 'flights/*.parquet' f \
                            JOIN airlines a USING (carrier) GROUP BY a.name\" --replace"
    )]
    Create(ViewCreate),
    /// Count what is new: files that are not counted yet, or changes of a table.
    #[command(
        after_help = "A file that is counted must stay as it is. One that has changed or is gone is an error, and the view \
                            stays as it was; --rebuild starts over with what is there.\n\n\
                            Examples:\n  darner view refresh by_carrier\n  darner view refresh by_carrier late/2013-12.parquet\n  \
                            darner view refresh by_airline --on-dimension-change rebuild"
    )]
    Refresh(ViewRefresh),
    /// List the views.
    #[command(after_help = "Example:\n  darner view list")]
    List,
    /// Say what is known of a view: its query, what it has counted, its dimensions.
    #[command(after_help = "Example:\n  darner view show by_carrier")]
    Show(ViewName),
    /// Say whether new rows alone refresh a view, and if not, why.
    #[command(after_help = "Example:\n  darner view explain by_carrier")]
    Explain(ViewName),
    /// Compute a view from its sources again, and compare. Changes nothing.
    #[command(
        after_help = "Problems go to standard output, one on a line; the exit code is 1 if there are any.\n\n\
                            Example:\n  darner view verify by_carrier"
    )]
    Verify(ViewName),
    /// Drop a view.
    #[command(after_help = "Example:\n  darner view drop by_carrier")]
    Drop(ViewName),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ViewCreate {
    /// The view.
    pub(crate) name: String,
    /// Its query.
    pub(crate) query: String,
    /// Replace a view of that name.
    #[arg(long, conflicts_with = "if_not_exists")]
    pub(crate) replace: bool,
    /// Leave a view of that name as it is.
    #[arg(long)]
    pub(crate) if_not_exists: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ViewRefresh {
    /// The view.
    pub(crate) name: String,
    /// Files, directories or patterns to count, instead of those that the view's query names.
    pub(crate) files: Vec<String>,
    /// Count all rows anew.
    #[arg(long, conflicts_with = "files")]
    pub(crate) rebuild: bool,
    /// What to do about dimensions that have changed since rows were joined with them.
    #[arg(long, value_enum, default_value_t = OnDimensionChange::Keep)]
    pub(crate) on_dimension_change: OnDimensionChange,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnDimensionChange {
    /// Rows that are counted stay as they are; new rows meet the dimension as it is now.
    Keep,
    /// All rows are joined anew.
    Rebuild,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ViewName {
    /// The view.
    pub(crate) name: String,
}
