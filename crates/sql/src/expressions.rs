//! Filters and computed columns on batches: what an enrichment takes of SQL.
//!
//! Conditions and columns are planned as a query on one table without rows, so that names, types and `*` mean what they
//! mean in SQL; what is left is a condition and a list of expressions, which are evaluated batch by batch without a
//! query. Names are taken as they are written, in capitals too.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, cast::AsArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use darner_engine::{BatchMap, Error, Result};
use datafusion::{
    arrow::compute::filter_record_batch,
    common::tree_node::{TreeNode, TreeNodeRecursion},
    datasource::empty::EmptyTable,
    logical_expr::{Expr, LogicalPlan},
    physical_expr::PhysicalExpr,
    prelude::{SessionConfig, SessionContext},
};

use crate::{error::from_datafusion, script, worker::Worker};

/// What the table of the batches is called.
const ROWS: &str = "rows";

/// A condition and columns, planned for batches of one schema.
#[derive(Debug)]
pub struct Expressions {
    schema: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// `None`: the columns as they are.
    columns: Option<Vec<Arc<dyn PhysicalExpr>>>,
}

impl Expressions {
    /// Plans a condition, and the columns that come out (such as `*` or `price * quantity as amount`), for batches of a
    /// schema. Without columns, all of them come out as they are.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for what is no SQL expression, names that are not
    /// there, two columns of one name, and for what needs more than one row: aggregates, windows, subqueries.
    pub fn new(
        schema: &SchemaRef,
        filter: Option<&str>,
        columns: Option<&[String]>,
    ) -> Result<Self> {
        let input = Arc::clone(schema);
        let (filter, columns) = (filter.map(str::to_owned), columns.map(<[String]>::to_vec));
        // On a stack that is deep enough for any text that is let through.
        let worker = Worker::start(1, None)?;
        worker.run(async move { plan(&input, filter.as_deref(), columns.as_deref()).await })
    }
}

async fn plan(
    schema: &SchemaRef,
    filter: Option<&str>,
    columns: Option<&[String]>,
) -> Result<Expressions> {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.enable_ident_normalization = false;
    let context = SessionContext::new_with_config(config);
    let table = Arc::new(EmptyTable::new(Arc::clone(schema)));
    context
        .register_table(ROWS, table)
        .map_err(from_datafusion)?;
    let filter = match filter {
        None => None,
        Some(filter) => {
            let query = format!("SELECT 1 FROM {ROWS} WHERE {filter}\n");
            let what = format!("where `{filter}`");
            let exprs = expressions(&context, &query, &what).await?;
            Some(exprs.filter.ok_or_else(|| not_one_row(&what))?)
        }
    };
    let Some(columns) = columns else {
        return Ok(Expressions {
            schema: Arc::clone(schema),
            filter,
            columns: None,
        });
    };
    if columns.is_empty() {
        return Err(Error::invalid("columns are at least one; * stands for all"));
    }
    let query = format!("SELECT {} FROM {ROWS}", columns.join(",\n"));
    let what = format!("columns `{}`", columns.join("`, `"));
    let exprs = expressions(&context, &query, &what).await?;
    if exprs.filter.is_some() {
        return Err(not_one_row(&what));
    }
    let mut fields = Vec::with_capacity(exprs.columns.len());
    for (name, expr) in &exprs.columns {
        let field = expr.return_field(schema).map_err(from_datafusion)?;
        let field = Field::new(name, field.data_type().clone(), field.is_nullable())
            .with_metadata(field.metadata().clone());
        fields.push(field);
    }
    Ok(Expressions {
        schema: Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())),
        filter,
        columns: Some(exprs.columns.into_iter().map(|(_, expr)| expr).collect()),
    })
}

/// What a query on one table is made of.
struct Parts {
    filter: Option<Arc<dyn PhysicalExpr>>,
    columns: Vec<(String, Arc<dyn PhysicalExpr>)>,
}

/// Takes a query apart, which must be a filter and columns and nothing else.
async fn expressions(context: &SessionContext, query: &str, what: &str) -> Result<Parts> {
    let state = context.state();
    {
        let (_, dialect) = script::dialect_of(&state)?;
        script::check_depth(query, dialect.as_ref()).map_err(|error| error.context(what))?;
    }
    let plan = state.create_logical_plan(query).await;
    let plan = plan.map_err(|error| from_datafusion(error).context(what))?;
    let LogicalPlan::Projection(projection) = plan else {
        return Err(not_one_row(what));
    };
    let (predicate, input) = match &*projection.input {
        LogicalPlan::Filter(filter) => (Some(&filter.predicate), &filter.input),
        _ => (None, &projection.input),
    };
    if !matches!(&**input, LogicalPlan::TableScan(_)) {
        return Err(not_one_row(what));
    }
    let physical = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>> {
        check(expr, what)?;
        state
            .create_physical_expr(expr.clone(), input.schema())
            .map_err(|error| from_datafusion(error).context(what))
    };
    let columns = projection.expr.iter().zip(projection.schema.fields());
    let columns = columns.map(|(expr, field)| Ok((field.name().clone(), physical(expr)?)));
    let filter = predicate.map(physical).transpose()?;
    Ok(Parts {
        filter,
        columns: columns.collect::<Result<_>>()?,
    })
}

/// Refuses what is not computed from one row, or not the same each time.
fn check(expr: &Expr, what: &str) -> Result<()> {
    if expr.is_volatile() {
        return Err(Error::invalid(format!(
            "{what}: an output is the same each time it is made; a function such as random() or uuid() is not"
        )));
    }
    let mut is_refused = false;
    expr.apply(|expr| {
        is_refused |= matches!(
            expr,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::AggregateFunction(_)
                | Expr::WindowFunction(_)
        );
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(from_datafusion)?;
    if is_refused {
        return Err(not_one_row(what));
    }
    Ok(())
}

fn not_one_row(what: &str) -> Error {
    Error::invalid(format!(
        "{what}: each row is looked at alone; aggregates, windows, subqueries and clauses such as LIMIT belong in a query"
    ))
}

impl BatchMap for Expressions {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn map(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let filtered;
        let batch = match &self.filter {
            None => batch,
            Some(filter) => {
                let mask = evaluate(filter, batch)?;
                if *mask.data_type() != DataType::Boolean {
                    return Err(Error::invalid(format!(
                        "a condition is true or false: got=`{}`",
                        mask.data_type()
                    )));
                }
                let mask = mask.as_boolean();
                if mask.true_count() == batch.num_rows() {
                    batch
                } else {
                    filtered = filter_record_batch(batch, mask).map_err(|error| {
                        Error::internal("cannot leave rows out").with_source(error)
                    })?;
                    &filtered
                }
            }
        };
        let Some(columns) = &self.columns else {
            return Ok(batch.clone());
        };
        let columns = columns.iter().map(|expr| evaluate(expr, batch));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(
            |error| Error::internal("computed columns are not as planned").with_source(error),
        )
    }
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)
        .and_then(|value| value.into_array(batch.num_rows()))
        .map_err(from_datafusion)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c", "d"]));
        RecordBatch::try_from_iter_with_nullable([("N", numbers, true), ("text", texts, false)])
            .unwrap()
    }

    fn map(filter: Option<&str>, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let batch = batch();
        let columns: Option<Vec<String>> =
            columns.map(|columns| columns.iter().map(|c| (*c).to_owned()).collect());
        let expressions = Expressions::new(&batch.schema(), filter, columns.as_deref())?;
        let mapped = expressions.map(&batch)?;
        assert_eq!(&mapped.schema(), expressions.schema());
        Ok(mapped)
    }

    #[test]
    fn rows_and_columns_are_those_of_the_expressions() {
        let mapped = map(
            Some("N > 1 -- not the null"),
            Some(&["*", "N * 0.5 AS half", "UPPER(text) as t"]),
        );
        let mapped = mapped.unwrap();
        let names: Vec<_> = mapped
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().clone())
            .collect();
        assert_eq!(names, ["N", "text", "half", "t"]);
        let half: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
        assert_eq!(mapped.column(2), &half);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["B", "D"]));
        assert_eq!(&arrow_cast(mapped.column(3)), &text);
        assert_eq!(map(Some("text <> ''"), None).unwrap(), batch());
        assert_eq!(map(Some("false"), None).unwrap().num_rows(), 0);
    }

    fn arrow_cast(column: &ArrayRef) -> ArrayRef {
        datafusion::arrow::compute::cast(column, &DataType::Utf8).unwrap()
    }

    #[test]
    fn what_is_no_expression_on_one_row_is_refused() {
        for (filter, columns, words) in [
            (Some("n > 1"), None, "n"),
            (Some("N >"), None, "where `N >`"),
            (Some("N"), None, "boolean"),
            (Some("count(*) > 1"), None, "ggregat"),
            (Some("N > (SELECT 1)"), None, "each row is looked at alone"),
            (Some("true LIMIT 1"), None, "each row is looked at alone"),
            (Some("random() > 0.5"), None, "the same each time"),
            (None, Some(&["sum(N)"][..]), "each row is looked at alone"),
            (
                None,
                Some(&["row_number() over ()"][..]),
                "each row is looked at alone",
            ),
            (None, Some(&["N", "text as N"][..]), "N"),
            (None, Some(&["N FROM other"][..]), "columns `N FROM other`"),
            (None, Some(&[][..]), "at least one"),
        ] {
            let error = map(filter, columns).unwrap_err();
            let causes = format!("{error} {:?}", std::error::Error::source(&error));
            assert!(causes.contains(words), "{filter:?} {columns:?}: {causes}");
            assert_eq!(error.kind(), darner_engine::ErrorKind::Invalid, "{causes}");
        }
    }
}
