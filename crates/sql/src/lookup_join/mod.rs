//! Joins with a table of the store as lookups.
//!
//! A hash join reads one of its sides, builds a hash table of it and forgets that when the query is over. Where that
//! side is a whole table of the store, joined on its key, a [`Dimension`](darner_engine::Dimension) is such a hash
//! table, and one that can be kept: [`LookupJoin`] puts a [`LookupJoinExec`] in the place of the hash join, through
//! which the other side, the facts, flows. The rule runs before DataFusion looks at the order of joins and at how rows
//! are spread over partitions, so that nothing is repartitioned, sorted or collected for a join that does not need it.
//!
//! A key is unique, so a row of the facts meets one row of the dimension at most. Everything here follows from that: rows
//! keep their order and partitions, none comes out twice, and a further condition that fails is the same as a miss.

mod exec;
mod lossless;
mod prepared;
mod rule;
mod side;
mod spec;
mod stream;

pub(crate) use self::rule::install;
