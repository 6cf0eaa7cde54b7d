//! Enriches Arrow batches against keyed, immutable dimensions at memory speed.
//!
//! Data flows one way: a [`Source`] gives pieces of an input, workers decode them and probe the [`Dimension`]s of a
//! [`StarJoin`], and a [`Sink`] takes the results in order. An [`Enrichment`] is all of that; [`load_table`] and
//! [`load_dimension`] go between files, the store's tables and dimensions. Everything is synchronous and runs on the
//! current rayon pool.

mod changes;
mod dimension;
mod error;
mod huge;
mod index;
mod join;
mod key;
mod load;
mod pipeline;
mod prefetch;
mod sink;
mod source;
mod unique;

pub use self::{
    changes::ChangedRows,
    dimension::{Dimension, DimensionBuilder, Found, Key, Matches},
    error::{Error, ErrorKind, Result},
    index::{BUILD_ROWS_MAX, Layout, LayoutKind, NO_MATCH},
    join::{
        Collect, ColumnPlan, Encoding, JoinCounters, JoinKind, JoinPlan, JoinSpec, JoinTimes,
        Joined, MISSING_KEYS_MAX, MissingKey, MissingKeys, Normalize, OnColumn, OnMiss, Scratch,
        SelectColumn, StarJoin,
    },
    key::{KeyPlan, check_key_field},
    load::{
        LoadMode, LoadOptions, LoadReport, VIEW_PREFIX, check_is_table, is_view, load_dimension,
        load_table,
    },
    pipeline::{
        BatchMap, Control, EnrichReport, Enrichment, JoinReport, PIECES_PER_WORKER, Profile,
        Progress, Sinks,
    },
    sink::{
        ColumnForm, Compression, Sealed, Sink, SinkOptions, Written, check_output, compact_views,
        create, create_into, to_writer, write_file,
    },
    source::{
        CsvOptions, Format, LocalFiles, MappedSource, Opener, Piece, Source, SourceOptions,
        Sources, expand, format_of, from_reader, open, open_all, open_all_with, open_as,
        parse_data_type,
    },
    unique::{Duplicates, FirstDuplicate, NullKey, OnDuplicate, UniqueKeys, UniqueRows},
};

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
