//! `darner state`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use crate::time::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Print the value of a key.
    #[command(
        after_help = "Examples:\n  darner state get sessions user/7\n  darner state get pictures user/7 --raw > user7.png"
    )]
    Get(StateGet),
    /// Set the value of a key; creates the namespace.
    #[command(
        after_help = "Examples:\n  darner state put sessions user/7 active --ttl 1h\n  \
                            darner state put pictures user/7 - < user7.png"
    )]
    Put(StatePut),
    /// Delete keys.
    #[command(after_help = "Example:\n  darner state delete sessions user/7 user/8")]
    Delete(StateDelete),
    /// Print keys and values in key order, a tab between them, one pair on a line.
    #[command(
        after_help = "Examples:\n  darner state scan sessions --prefix user/ --limit 10 --reverse\n  \
                            darner state scan sessions --start user/10 --end user/20"
    )]
    Scan(StateScan),
    /// List the namespaces.
    #[command(after_help = "Example:\n  darner state list")]
    List,
    /// Delete all keys of a namespace.
    #[command(after_help = "Example:\n  darner state clear sessions")]
    Clear(Namespace),
    /// Say what is known of a namespace.
    #[command(after_help = "Example:\n  darner state stats sessions")]
    Stats(Namespace),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Namespace {
    /// The namespace.
    pub(crate) namespace: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StateGet {
    /// The namespace.
    pub(crate) namespace: String,
    /// The key.
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: String,
    /// The key is written, and the value printed, in hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Print the bytes of the value and nothing else, not even a line end.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StatePut {
    /// The namespace.
    pub(crate) namespace: String,
    /// The key.
    #[arg(allow_negative_numbers = true)]
    pub(crate) key: String,
    /// The value; - takes the bytes of standard input.
    #[arg(allow_negative_numbers = true)]
    pub(crate) value: String,
    /// The entry ends after this time, such as 7d, 12h, 30m or 90s.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Key and value are written in hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StateDelete {
    /// The namespace.
    pub(crate) namespace: String,
    /// The keys.
    #[arg(required = true, allow_negative_numbers = true)]
    pub(crate) keys: Vec<String>,
    /// Keys are written in hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct StateScan {
    /// The namespace.
    pub(crate) namespace: String,
    /// Only keys that begin so.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["start", "end"])]
    pub(crate) prefix: Option<String>,
    /// Only this key and those after it.
    #[arg(long, value_name = "KEY")]
    pub(crate) start: Option<String>,
    /// Only keys before this one.
    #[arg(long, value_name = "KEY")]
    pub(crate) end: Option<String>,
    /// The most entries to print.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// From the last key to the first.
    #[arg(long)]
    pub(crate) reverse: bool,
    /// All bytes are written and printed in hexadecimal digits.
    #[arg(long)]
    pub(crate) hex: bool,
}
