//! Statements that change tables: `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE`, `MERGE`.
//!
//! DataFusion would hand over the parts of a `WHERE` that it finds above or in the scan of the table, and no parts if
//! the optimizer made something else of it: a join of a subquery, or nothing of what is always false. No parts would
//! mean all rows. So [`WriteRule`] comes before the optimizer. It makes each statement an insertion into a
//! [`WriteTarget`], whose input is a query of its own with the whole condition in it: of the keys that go, or of the
//! rows in their new form. Whatever a query can say a condition can, and the hooks that take parts refuse them.
//!
//! What is read and what is replaced are of one state of the table: see [`StoreSink`](sink::StoreSink).

mod apply;
mod check;
mod lock;
mod merge;
mod moves;
mod rule;
mod sink;
mod target;

pub(crate) use self::{
    apply::Change,
    check::check_statement,
    lock::WriteLocks,
    rule::{WriteRule, into_target, writable},
    sink::Steps,
    target::{Statement, WriteTarget, refuse_parts},
};
