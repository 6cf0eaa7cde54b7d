//! Jobs: what a job file says, and what of it was done before.

mod check;
mod checked;
mod directory;
mod file;
mod manifest;
mod memory;
mod order;
mod split;
mod step;
mod steps;
mod variables;

pub(crate) use self::{check::check, file::Job, steps::run};
