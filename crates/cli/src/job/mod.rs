//! Jobs: what a job file says, and what of it was done before.

mod file;
mod fingerprint;
mod steps;

pub(crate) use self::{file::Job, steps::run};
