//! Reading tables.

mod live;
mod pages;
mod snapshot;

pub use self::{
    pages::{PageReader, PageRows},
    snapshot::{Rows, TableSnapshot},
};
