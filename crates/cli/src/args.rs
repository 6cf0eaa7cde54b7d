//! What was typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use darner_engine as engine;

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
    /// Print results and errors only.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Print results as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do a job: load its dimensions, enrich its facts, answer its questions; only what changed is done again.
    #[command(after_help = "Example:\n  darner run data/flights.toml")]
    Run(Run),
    /// Load files into a dimension table; creates the table.
    #[command(
        after_help = "Examples:\n  darner load airports airports.csv --key faa --null NA\n  \
                            darner load prices 'prices/*.parquet' --key symbol,day --mode replace"
    )]
    Load(Load),
    /// Enrich facts from dimension tables.
    #[command(
        after_help = "JOIN: [left|inner|semi|anti] TABLE [as ALIAS] on FACT[=KEY][, ...] [select COL [as NAME], ...]\n\n\
                            Examples:\n  darner enrich flights.parquet --with 'airlines on carrier' -o enriched.parquet\n  \
                            darner enrich flights.arrow --with 'airports as origin on origin = faa select name as origin_name' \
                            -o - --format csv"
    )]
    Enrich(Enrich),
    /// Print the rows with these keys.
    #[command(
        after_help = "Examples:\n  darner get airports JFK LGA\n  darner get weather 'JFK,2013-01-01T06:00:00Z'"
    )]
    Get(Get),
    /// Print the rows of a table.
    #[command(after_help = "Example:\n  darner scan airports --select faa,name --limit 5")]
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
    /// Say what is known of a table.
    Info(Info),
    /// Ask a question in SQL, over tables of the store and files.
    #[command(
        after_help = "Example:\n  darner sql \"SELECT carrier, count(*) FROM 'flights.parquet' JOIN airlines USING (carrier) GROUP BY carrier\""
    )]
    Sql(Sql),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    /// The job file.
    pub(crate) job: PathBuf,
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
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// The fact columns that come out; all unless given.
    #[arg(long, value_name = "COL[,COL]", value_delimiter = ',')]
    pub(crate) select: Option<Vec<String>>,
    /// How dimension columns are written.
    #[arg(long, value_enum, default_value_t = Encoding::Plain)]
    pub(crate) encoding: Encoding,
    /// Where fact rows go that a dimension has missed, with a column that names the dimensions.
    #[arg(long, value_name = "FILE")]
    pub(crate) unmatched: Option<PathBuf>,
    /// Where the report goes, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// Fail, and leave no output, if a join misses a larger share of its keys than this.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) max_miss_rate: Option<f64>,
    /// The output's format; its name's extension unless given.
    #[arg(long, value_parser = parse_format)]
    pub(crate) format: Option<engine::Format>,
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
    /// The type of a CSV or NDJSON column, such as zip=string or day=date.
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
    /// The table.
    pub(crate) table: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sql {
    /// The query; - reads it from standard input.
    pub(crate) query: String,
    #[command(flatten)]
    pub(crate) output: Output,
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

fn parse_row_format(text: &str) -> Result<RowFormat, String> {
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
