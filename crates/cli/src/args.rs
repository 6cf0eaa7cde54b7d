//! What was typed.

mod state;
mod view;

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use darner_engine as engine;
use darner_store::AsOf;

pub(crate) use self::{
    state::{Namespace, State, StateDelete, StateGet, StatePut, StateScan},
    view::{OnDimensionChange, View, ViewCreate, ViewName, ViewRefresh},
};
use crate::time::{parse_as_of, parse_duration};

/// Enriches batches of facts from durable dimension tables.
#[derive(Debug, Parser)]
#[command(
    name = "darner",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub(crate) struct Args {
    /// The store's directory.
    #[arg(
        long,
        global = true,
        env = "DARNER_STORE",
        default_value = "darner-store"
    )]
    pub(crate) store: PathBuf,
    /// Threads to work with; all cores unless given.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<std::num::NonZeroUsize>,
    /// Refuse an enrichment whose dimensions would take more memory than this, such as 500MB or 2GiB; unless given, more than
    /// there is. Queries keep pages of tables up to a quarter of it.
    #[arg(long, global = true, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) memory_limit: Option<u64>,
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Say more: why a step of a job is done, and each file of a directory.
    #[arg(long, short, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
    /// How notes and errors are written to standard error: as text, or as one JSON object a line.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Tell on standard error what the program and its libraries do and how long it takes: a level (debug, trace), or
    /// levels by part, such as `darner_store=debug,darner_remote=trace`.
    #[arg(long, global = true, value_name = "LEVELS", env = "DARNER_LOG")]
    pub(crate) log: Option<tracing_subscriber::filter::Targets>,
    /// Write counters and timings of a job or an enrichment to a file, in the text format of Prometheus.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) metrics_file: Option<PathBuf>,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do a job: load its dimensions, enrich its facts, answer its questions; only what changed is done again.
    #[command(
        after_help = "Examples:\n  darner run data/flights.toml\n  darner run job.toml --only airports --only flights\n  \
                            darner run job.toml --set DAY=2026-11-20 --set enrich.flights.max_miss_rate=0.1"
    )]
    Run(Run),
    /// Say what a job would do and whether it can, and do nothing: files, columns, types, names, memory.
    #[command(
        after_help = "Problems go to standard error, one on a line; the exit code is not 0 if there are any.\n\n\
                            Examples:\n  darner check data/flights.toml\n  darner check job.toml --only flights --json"
    )]
    Check(Run),
    /// Write a job for some files, with comments: keys and joins are guessed from what is in them.
    #[command(
        after_help = "Files whose rows have a key are taken for dimensions, others for facts; look at what was guessed. The job \
                            is written to standard output unless -o is given.\n\n\
                            Example:\n  darner init data/*.csv data/flights.parquet -o job.toml && darner check job.toml"
    )]
    Init(Init),
    /// Print a script that completes commands and options in a shell.
    #[command(
        after_help = "Examples:\n  darner completions bash > ~/.local/share/bash-completion/completions/darner\n  \
                            darner completions zsh > ~/.zfunc/_darner"
    )]
    Completions(Completions),
    /// Print the manual page, or write those of all commands into a directory.
    #[command(
        after_help = "Examples:\n  darner man | man -l -\n  darner man ~/.local/share/man/man1"
    )]
    Man(Man),
    /// Load files into a dimension table; creates the table.
    #[command(
        after_help = "Examples:\n  darner load airports airports.csv --key faa --null NA\n  \
                            darner load prices 'prices/*.parquet' --key symbol,day --mode replace"
    )]
    Load(Load),
    /// Enrich facts from dimension tables.
    #[command(
        after_help = "JOIN: [left|inner|semi|anti] TABLE [as ALIAS] on FACT[=KEY][, ...] [select COL [as NAME], ...]\n      \
                            [on_miss null|drop|error|route|default COL=VALUE[, ...]]\n\
                            FACT: a column, or trim(FACT), upper(FACT), lower(FACT), cast(FACT as TYPE)\n\n\
                            Examples:\n  darner enrich flights.parquet --with 'airlines on carrier' -o enriched.parquet\n  \
                            darner enrich flights.arrow --with 'airports as origin on origin = faa select name as origin_name' \
                            -o - --format csv\n  \
                            darner enrich flights.arrow --with 'planes on upper(trim(tailnum)) on_miss route' \
                            --unmatched unknown.parquet -o known.parquet\n  \
                            darner enrich flights.arrow --with 'airlines on carrier' --where 'dep_delay > 60' \
                            --column '*' --column 'dep_delay / 60.0 as hours' -o late.parquet\n  \
                            darner enrich flights.arrow --with 'airlines on carrier' --explain"
    )]
    Enrich(Enrich),
    /// Print the rows with these keys.
    #[command(
        after_help = "Examples:\n  darner get airports JFK LGA\n  darner get weather 'JFK,2013-01-01T06:00:00Z'\n  \
                            darner get airports JFK --as-of 2026-11-20"
    )]
    Get(Get),
    /// Print the rows of a table.
    #[command(
        after_help = "Examples:\n  darner scan airports --select faa,name --limit 5\n  \
                            darner scan airports --as-of '2026-11-20 13:00' -o before.csv"
    )]
    Scan(Scan),
    /// Delete rows by key.
    #[command(
        after_help = "Examples:\n  darner delete airports JFK LGA\n  darner delete airports --from closed.csv"
    )]
    Delete(Delete),
    /// Drop a table with all its rows.
    Drop(Drop),
    /// List the tables of the store.
    Tables,
    /// Say what is known of a table, or of the store.
    #[command(after_help = "Examples:\n  darner info\n  darner info airports")]
    Info(Info),
    /// List the commits that changed a table: what they added and removed, and which can still be read.
    #[command(
        after_help = "Example:\n  darner history airports\n\nRead an older version with --as-of of scan, get and \
                            enrich; say how many are kept with darner retention."
    )]
    History(History),
    /// Print what has changed in a table since an earlier version.
    #[command(
        after_help = "The first column, _change, says upsert (a row that is new or has changed) or delete (the key of a \
                            row that is gone; the other columns are null).\n\n\
                            Examples:\n  darner changes airports --since 3\n  \
                            darner changes airports --since 3 --as-of 7 --format csv -o changes.csv"
    )]
    Changes(Changes),
    /// Show or set how much of a table's past is kept for reading.
    #[command(
        after_help = "A version is kept as long as either bound asks for it: of the newest N versions, or in use less than \
                            so long ago.\n\n\
                            Examples:\n  darner retention airports\n  darner retention airports --versions 10 --age 7d"
    )]
    Retention(Retention),
    /// Give back the space of rows that were replaced or deleted, and sort the others by key.
    #[command(
        after_help = "Versions that a table's retention does not keep go for good.\n\n\
                            Examples:\n  darner compact\n  darner compact airports"
    )]
    Compact(Compact),
    /// Check every file of the store: checksums, pages, and whether they fit together. Changes nothing.
    #[command(
        after_help = "Problems go to standard output, one on a line; the exit code is 1 if there are any.\n\n\
                            Example:\n  darner verify"
    )]
    Verify,
    /// Copy the store into a directory, while others read and write it.
    #[command(
        after_help = "The directory must be empty or missing. The copy is a store itself.\n\n\
                            Example:\n  darner backup backups/2026-11-20"
    )]
    Backup(Backup),
    /// Make the store from a backup.
    #[command(after_help = "The store's directory must be empty or missing.\n\n\
                            Example:\n  darner --store restored restore backups/2026-11-20")]
    Restore(Restore),
    /// Read and write keyed state: values by key, in namespaces.
    #[command(
        subcommand,
        after_help = "Keys and values are text unless --hex is given. Bytes that are no text are printed as \\xNN, and \
                            a backslash as \\\\.\n\n\
                            Examples:\n  darner state put sessions user/7 active --ttl 1h\n  \
                            darner state get sessions user/7\n  \
                            darner state scan sessions --prefix user/ --limit 10"
    )]
    State(State),
    /// Make and refresh materialized views: queries with groups, kept up to date by new rows alone.
    #[command(
        subcommand,
        after_help = "A view is a table in SQL, in get (by its groups), scan and info, and facts are joined with it by columns that\n\
                            tell its rows apart: enrich --with 'delays on carrier'.\n\n\
                            Examples:\n  darner view create delays \"SELECT carrier, count(*) AS flights, avg(dep_delay) AS delay \
                            FROM 'flights/*.parquet' GROUP BY carrier\"\n  \
                            darner view refresh delays\n  darner get delays UA"
    )]
    View(View),
    /// Run SQL over tables of the store and files; a prompt if no statement is given.
    #[command(
        after_help = "Files stand in single quotes: 'flights.parquet', 'in/*.csv.gz', a directory. Statements are separated \
                            by semicolons. What comes from standard input, if that is no terminal, may only read tables, \
                            unless --allow-writes and --allow-files say otherwise.\n\n\
                            Examples:\n  darner sql\n  \
                            darner sql \"SELECT carrier, count(*) FROM 'flights.parquet' JOIN airlines USING (carrier) GROUP BY carrier\"\n  \
                            darner sql 'SELECT * FROM airports WHERE alt > 5000' -o high.parquet\n  \
                            darner sql --allow-writes < changes.sql"
    )]
    Sql(Sql),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    /// The job file.
    pub(crate) job: PathBuf,
    /// Only this step, and nothing that it depends on; may be given several times. KIND.NAME where names are not enough.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// A variable of the job (${KEY} in its texts), or a field such as enrich.flights.to; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) set: Vec<(String, String)>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// Files, directories or patterns.
    #[arg(required = true)]
    pub(crate) files: Vec<String>,
    /// Where the job goes; a file that is there is not replaced.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Man {
    /// The directory; the page of darner itself is printed unless given.
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Load {
    /// The table.
    pub(crate) table: String,
    /// Files, directories or patterns; - is standard input.
    #[arg(required = true)]
    pub(crate) files: Vec<String>,
    /// The key columns; those of the table unless given.
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',')]
    pub(crate) key: Option<Vec<String>>,
    /// What happens to the rows that are there.
    #[arg(long, value_enum, default_value_t = Mode::Upsert)]
    pub(crate) mode: Mode,
    /// What a key that comes twice means.
    #[arg(long, value_enum, default_value_t = OnDuplicate::Error)]
    pub(crate) on_duplicate: OnDuplicate,
    #[command(flatten)]
    pub(crate) input: Input,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Enrich {
    /// Files, directories or patterns; - is standard input.
    #[arg(required = true)]
    pub(crate) files: Vec<String>,
    /// A join; may be given several times.
    #[arg(long = "with", value_name = "JOIN", required = true)]
    pub(crate) joins: Vec<String>,
    /// Where the enriched rows go; - is standard output.
    #[arg(long, short, value_name = "FILE", required_unless_present = "explain")]
    pub(crate) output: Option<PathBuf>,
    /// The fact columns that come out; all unless given.
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',')]
    pub(crate) select: Option<Vec<String>>,
    /// How dimension columns are written.
    #[arg(long, value_enum, default_value_t = Encoding::Plain)]
    pub(crate) encoding: Encoding,
    /// Where fact rows go that a dimension has missed, with a column that names the dimensions. Rows without a key, which
    /// are counted apart, are not among them.
    #[arg(long, value_name = "FILE")]
    pub(crate) unmatched: Option<PathBuf>,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Fail, and leave no output, if a join misses a larger share of its keys than this.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) max_miss_rate: Option<f64>,
    /// Fail, and leave no output, if it would have fewer rows than this.
    #[arg(long, value_name = "N")]
    pub(crate) min_rows: Option<u64>,
    /// Fail, and do nothing, if a dimension table was not changed for longer than this, such as 7d or 12h.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) max_dimension_age: Option<Duration>,
    /// Fail, and do nothing, if a dimension table has no rows.
    #[arg(long)]
    pub(crate) refuse_empty: bool,
    /// Take only rows that meet a condition in SQL. One on fact columns alone is applied before the joins count.
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) filter: Option<String>,
    /// A column that comes out, as in SELECT: *, a name, or 'price * quantity as amount'; may be given several times.
    #[arg(long = "column", value_name = "EXPR [as NAME]")]
    pub(crate) columns: Vec<String>,
    /// The dimension tables as they were: a version, or a time in UTC such as 2026-11-20 or '2026-11-20 13:00'.
    #[arg(long, value_name = "VERSION|TIME", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
    /// How the output is compressed; zstd for Parquet and not at all for Arrow IPC unless given.
    #[arg(long, value_enum)]
    pub(crate) compression: Option<Compression>,
    /// Rows of a Parquet row group, at most.
    #[arg(long, value_name = "N")]
    pub(crate) row_group_rows: Option<std::num::NonZeroUsize>,
    /// The output's format; its name's extension unless given.
    #[arg(long, value_parser = parse_format)]
    pub(crate) format: Option<engine::Format>,
    /// Print what would be done, and do not do it: dimensions, indexes, columns, memory.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Say how long each stage took.
    #[arg(long, conflicts_with = "explain")]
    pub(crate) profile: bool,
    #[command(flatten)]
    pub(crate) input: Input,
}

/// How inputs are read.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Input {
    /// The inputs' format; their names' extensions unless given.
    #[arg(long = "input-format", value_parser = parse_format, value_name = "FORMAT")]
    pub(crate) format_in: Option<engine::Format>,
    /// Text that means null in CSV, beside the empty field.
    #[arg(long, value_name = "TEXT")]
    pub(crate) null: Vec<String>,
    /// The character between CSV fields.
    #[arg(long, value_name = "CHAR", value_parser = parse_delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// CSV has no line of column names; its columns are numbered: `column_1` and so on.
    #[arg(long)]
    pub(crate) no_header: bool,
    /// The character around CSV fields that hold delimiters.
    #[arg(long, value_name = "CHAR", value_parser = parse_delimiter)]
    pub(crate) quote: Option<u8>,
    /// The type of a CSV or NDJSON column, such as zip=string or day=date; in CSV also with how dates are written, such as
    /// 'day=date(%d.%m.%Y)'.
    #[arg(long = "type", value_name = "COL=TYPE")]
    pub(crate) types: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    /// The table.
    pub(crate) table: String,
    /// Keys; the parts of a composite key are separated by commas.
    #[arg(required = true)]
    pub(crate) keys: Vec<String>,
    /// The table as it was: a version, or a time in UTC such as 2026-11-20 or '2026-11-20 13:00'.
    #[arg(long, value_name = "VERSION|TIME", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Scan {
    /// The table.
    pub(crate) table: String,
    /// The columns; all unless given.
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',')]
    pub(crate) select: Option<Vec<String>>,
    /// The most rows to print.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// The table as it was: a version, or a time in UTC such as 2026-11-20 or '2026-11-20 13:00'.
    #[arg(long, value_name = "VERSION|TIME", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Delete {
    /// The table.
    pub(crate) table: String,
    /// Keys; the parts of a composite key are separated by commas.
    #[arg(required_unless_present = "from", conflicts_with = "from")]
    pub(crate) keys: Vec<String>,
    /// A file that has the key columns.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) input: Input,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Drop {
    /// The table.
    pub(crate) table: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Info {
    /// The table; the store as a whole unless given.
    pub(crate) table: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// The table.
    pub(crate) table: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Changes {
    /// The table.
    pub(crate) table: String,
    /// The version, or the time, from which on changes are printed; 0 for all rows.
    #[arg(long, value_name = "VERSION|TIME", value_parser = parse_as_of)]
    pub(crate) since: AsOf,
    /// The version, or the time, up to which changes are printed; all unless given.
    #[arg(long, value_name = "VERSION|TIME", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Retention {
    /// The table.
    pub(crate) table: String,
    /// Keep the newest N versions, the table as it is among them.
    #[arg(long, value_name = "N")]
    pub(crate) versions: Option<NonZeroU64>,
    /// Keep each version for so long after another one has followed it, such as 7d, 12h, 30m or 90s; 0 for not at all.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) age: Option<Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Compact {
    /// The table; all tables and keyed state unless given.
    pub(crate) table: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Backup {
    /// Where the copy goes.
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// The backup.
    pub(crate) dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag that was typed or not"
)]
pub(crate) struct Sql {
    /// Statements; - reads them from standard input. A prompt unless given, where standard input is a terminal.
    pub(crate) query: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Refuse statements that change tables or write files.
    #[arg(long, conflicts_with = "allow_writes")]
    pub(crate) read_only: bool,
    /// Refuse statements that name files.
    #[arg(long, conflicts_with = "allow_files")]
    pub(crate) no_files: bool,
    /// A prompt, even if standard input is no terminal.
    #[arg(long, short, conflicts_with = "query")]
    pub(crate) interactive: bool,
    /// Let statements from standard input change tables and, with --allow-files, write files.
    #[arg(long)]
    pub(crate) allow_writes: bool,
    /// Let statements from standard input name files, and change all settings.
    #[arg(long)]
    pub(crate) allow_files: bool,
}

/// Where rows are printed, and how.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Output {
    /// Where the rows go; standard output unless given.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// table, csv, tsv, ndjson, arrow, arrows or parquet; by the file's extension, else a table.
    #[arg(long, value_parser = parse_row_format)]
    pub(crate) format: Option<RowFormat>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    Table,
    File(engine::Format),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Mode {
    /// Rows with other keys stay.
    Upsert,
    /// All rows go; the table may get other columns.
    Replace,
}

impl From<Mode> for engine::LoadMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Upsert => Self::Upsert,
            Mode::Replace => Self::Replace,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OnDuplicate {
    /// Load nothing.
    Error,
    /// The first row counts.
    First,
    /// The last row counts.
    Last,
}

impl From<OnDuplicate> for engine::OnDuplicate {
    fn from(on_duplicate: OnDuplicate) -> Self {
        match on_duplicate {
            OnDuplicate::Error => Self::Error,
            OnDuplicate::First => Self::First,
            OnDuplicate::Last => Self::Last,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Encoding {
    /// As the dimension has them.
    Plain,
    /// Strings as views.
    View,
    /// As dictionaries: the dimension itself, written once.
    Dictionary,
}

#[derive(Clone, Copy, Debug, serde::Deserialize, serde::Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    /// Not at all.
    None,
    /// LZ4: Arrow IPC, Parquet.
    Lz4,
    /// Zstandard: all formats.
    Zstd,
    /// Snappy: Parquet.
    Snappy,
    /// Gzip: Parquet, CSV, TSV, NDJSON.
    Gzip,
}

impl From<Compression> for engine::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Uncompressed,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
            Compression::Snappy => Self::Snappy,
            Compression::Gzip => Self::Gzip,
        }
    }
}

impl From<Encoding> for engine::Encoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Plain => Self::Plain,
            Encoding::View => Self::View,
            Encoding::Dictionary => Self::Dictionary,
        }
    }
}

fn parse_format(text: &str) -> Result<engine::Format, String> {
    text.parse()
        .map_err(|error: engine::Error| error.to_string())
}

pub(crate) fn parse_row_format(text: &str) -> Result<RowFormat, String> {
    if text.eq_ignore_ascii_case("table") {
        return Ok(RowFormat::Table);
    }
    parse_format(text).map(RowFormat::File)
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text {
        "\\t" => Ok(b'\t'),
        text if text.len() == 1 => Ok(text.as_bytes()[0]),
        _ => Err("a delimiter is one ASCII character, or \\t".to_owned()),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0 to 1".to_owned()),
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("a setting is KEY=VALUE".to_owned()),
    }
}

/// Reads a number of bytes such as `2GiB`, `500MB`, `64k` or `1000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 11] = [
        ("", 1),
        ("b", 1),
        ("k", 1 << 10),
        ("kb", 1_000),
        ("kib", 1 << 10),
        ("m", 1 << 20),
        ("mb", 1_000_000),
        ("mib", 1 << 20),
        ("g", 1 << 30),
        ("gb", 1_000_000_000),
        ("gib", 1 << 30),
    ];
    let wrong = || "a number of bytes is written as 2GiB, 500MB or 1000000".to_owned();
    let text = text.trim();
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, factor) = factor.ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(*factor).ok_or_else(wrong)
}
