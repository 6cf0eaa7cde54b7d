//! The tables and the queries of TPC-H.

use arrow_array::{RecordBatch, RecordBatchReader};
use arrow_schema::{ArrowError, SchemaRef};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator,
    PartSuppGenerator, RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

/// The table of facts. All others go into a store.
pub(crate) const FACTS: &str = "lineitem";

/// A table with its rows in memory.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    pub(crate) schema: SchemaRef,
    pub(crate) rows: Vec<RecordBatch>,
}

impl Table {
    fn new(
        name: &'static str,
        key: &'static [&'static str],
        rows: impl RecordBatchReader,
    ) -> Result<Self, ArrowError> {
        Ok(Self {
            name,
            key,
            schema: rows.schema(),
            rows: rows.collect::<Result<_, _>>()?,
        })
    }
}

/// All tables at a scale: 1 has 6 million rows in `lineitem`.
pub(crate) fn tables(scale: f64) -> Result<Vec<Table>, ArrowError> {
    let region = RegionArrow::new(RegionGenerator::new(scale, 1, 1));
    let nation = NationArrow::new(NationGenerator::new(scale, 1, 1));
    let supplier = SupplierArrow::new(SupplierGenerator::new(scale, 1, 1));
    let customer = CustomerArrow::new(CustomerGenerator::new(scale, 1, 1));
    let part = PartArrow::new(PartGenerator::new(scale, 1, 1));
    let partsupp = PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1));
    let orders = OrderArrow::new(OrderGenerator::new(scale, 1, 1));
    let lineitem = LineItemArrow::new(LineItemGenerator::new(scale, 1, 1));
    Ok(vec![
        Table::new("region", &["r_regionkey"], region)?,
        Table::new("nation", &["n_nationkey"], nation)?,
        Table::new("supplier", &["s_suppkey"], supplier)?,
        Table::new("customer", &["c_custkey"], customer)?,
        Table::new("part", &["p_partkey"], part)?,
        Table::new("partsupp", &["ps_partkey", "ps_suppkey"], partsupp)?,
        Table::new("orders", &["o_orderkey"], orders)?,
        Table::new(FACTS, &["l_orderkey", "l_linenumber"], lineitem)?,
    ])
}

/// The 22 queries, in their order.
pub(crate) fn queries() -> Vec<&'static str> {
    let all = include_str!("queries.sql").split(';');
    all.map(str::trim).filter(|sql| !sql.is_empty()).collect()
}
