//! Enrichments, from the command line and from jobs: what one is to do, what must hold of it, and doing it.

mod gates;
mod lineage;
mod plan;
mod run;
mod views;

pub(crate) use self::{
    gates::{Gates, JoinGates},
    lineage::Lineage,
    plan::{Done, Plan},
    run::{Dimensions, Files, execute, execute_on, plan_joins, prepare},
    views::view_key,
};
