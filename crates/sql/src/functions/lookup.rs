//! Lookups of single rows: `dim_get`, `dim_has`.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, OnceLock},
};

use arrow_array::{ArrayRef, BooleanArray};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use darner_engine::{Dimension, DimensionBuilder, Error, Matches, NO_MATCH};
use darner_store::TableSnapshot;
use datafusion::{
    common::{
        Result, ScalarValue, internal_err, plan_err,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
        ScalarUDFImpl, Signature, Volatility, expr::ScalarFunction,
    },
};

use crate::{
    blocking::blocking,
    catalog::{Catalogs, StoreHandle},
    error::to_datafusion,
    pin::Moments,
};

/// What is asked for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ask {
    /// A column of its row.
    Get,
    /// Whether it has a row.
    Has,
}

impl Ask {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "dim_get",
            Self::Has => "dim_has",
        }
    }

    fn usage(self) -> &'static str {
        match self {
            Self::Get => "dim_get('table', key, ..., 'column')",
            Self::Has => "dim_has('table', key, ...)",
        }
    }

    /// Arguments beside the key: the table before it, and the column after it.
    fn num_names(self) -> usize {
        match self {
            Self::Get => 2,
            Self::Has => 1,
        }
    }
}

/// One of the functions. All calls in a statement look into tables as of one commit: [`pin_lookups`] gives each call a
/// function of its own, which knows its table.
pub(super) struct Lookup {
    ask: Ask,
    catalogs: Arc<Catalogs>,
    signature: Signature,
    pinned: Option<Arc<Pinned>>,
}

/// The table that a call looks into.
struct Pinned {
    handle: Arc<StoreHandle>,
    table: TableSnapshot,
    /// Held for as long as the statement runs.
    dimension: OnceLock<Arc<Dimension>>,
}

impl Lookup {
    pub(super) fn new(ask: Ask, catalogs: Arc<Catalogs>) -> Self {
        Self {
            ask,
            catalogs,
            signature: Signature::variadic_any(Volatility::Stable),
            pinned: None,
        }
    }

    /// The table that a call names, as of the statement's commit, or as it is now if no rule has said which.
    fn table(&self, name: &str) -> Result<Arc<Pinned>> {
        if let Some(pinned) = &self.pinned {
            return Ok(Arc::clone(pinned));
        }
        let (handle, table) = self.catalogs.table(name).map_err(to_datafusion)?;
        Ok(Arc::new(Pinned {
            handle,
            table,
            dimension: OnceLock::new(),
        }))
    }

    /// The literal name at a place.
    fn literal<'v>(&self, what: &str, value: Option<&'v ScalarValue>) -> Result<&'v str> {
        if let Some(text) = value.and_then(|value| value.try_as_str().flatten()) {
            return Ok(text);
        }
        plan_err!(
            "{} wants the name of a {what} as a text in single quotes; it is written as {}",
            self.ask.name(),
            self.ask.usage()
        )
    }

    /// The names of the table and of the column among the arguments; of those that are none, `None` is given.
    fn names<'v>(&self, values: &[Option<&'v ScalarValue>]) -> Result<(&'v str, Option<&'v str>)> {
        if values.len() <= self.ask.num_names() {
            return plan_err!(
                "{} is written as {}: arguments=`{}`",
                self.ask.name(),
                self.ask.usage(),
                values.len()
            );
        }
        let table = self.literal("table", values.first().copied().flatten())?;
        let column = match self.ask {
            Ask::Get => Some(self.literal("column", values.last().copied().flatten())?),
            Ask::Has => None,
        };
        Ok((table, column))
    }

    /// The arguments that are the key.
    fn key<'a, T>(&self, args: &'a [T]) -> &'a [T] {
        &args[1..=args.len() - self.ask.num_names()]
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup")
            .field("ask", &self.ask)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Lookup {
    fn eq(&self, other: &Self) -> bool {
        self.ask == other.ask
            && Arc::ptr_eq(&self.catalogs, &other.catalogs)
            && match (&self.pinned, &other.pinned) {
                (Some(own), Some(other)) => own.identity() == other.identity(),
                (own, other) => own.is_none() && other.is_none(),
            }
    }
}

impl Eq for Lookup {}

impl Hash for Lookup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ask.hash(state);
        let pinned = self.pinned.as_deref();
        pinned.map(|pinned| pinned.table.version()).hash(state);
    }
}

impl Pinned {
    fn identity(&self) -> (*const StoreHandle, &str, u64, u64) {
        let table = &self.table;
        (
            Arc::as_ptr(&self.handle),
            table.name(),
            table.created().number,
            table.version().number,
        )
    }

    /// The column that is asked for, by its name.
    fn column(&self, name: &str) -> Result<FieldRef> {
        let schema = self.table.schema();
        if let Some((_, field)) = schema.fields().find(name) {
            return Ok(Arc::clone(field));
        }
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Err(to_datafusion(Error::invalid(format!(
            "no such column: table=`{}` column=`{name}` columns=`{}`",
            self.table.name(),
            names.join(", ")
        ))))
    }

    /// Fails if a key of these types cannot be compared with that of the table. An empty dimension knows it.
    fn check_key(&self, key: &[FieldRef]) -> darner_engine::Result<()> {
        let spec = self.table.spec();
        let names: Vec<String> = self
            .table
            .key_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let schema = Schema::new(spec.key_schema().fields().clone());
        let builder = DimensionBuilder::new(self.table.name(), Arc::new(schema), &names)?;
        builder.finish()?.bind(key).map(|_| ())
    }

    fn dimension(&self, columns: &[String]) -> darner_engine::Result<Arc<Dimension>> {
        if let Some(dimension) = self.dimension.get() {
            return Ok(Arc::clone(dimension));
        }
        let dimension = blocking(|| self.handle.dimensions().get(&self.table, columns))?;
        Ok(Arc::clone(self.dimension.get_or_init(|| dimension)))
    }
}

impl ScalarUDFImpl for Lookup {
    fn name(&self) -> &str {
        self.ask.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        internal_err!("the type of a lookup depends on the column's name")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let (table, column) = self.names(args.scalar_arguments)?;
        let table = self.table(table)?;
        let field = match column {
            Some(column) => {
                let data_type = table.column(column)?.data_type().clone();
                Field::new(self.name(), data_type, true)
            }
            None => Field::new(self.name(), DataType::Boolean, false),
        };
        let key: Vec<FieldRef> = self.key(args.arg_fields).to_vec();
        table.check_key(&key).map_err(to_datafusion)?;
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ScalarFunctionArgs {
            args, number_rows, ..
        } = args;
        let scalars: Vec<Option<&ScalarValue>> = args
            .iter()
            .map(|arg| match arg {
                ColumnarValue::Scalar(value) => Some(value),
                ColumnarValue::Array(_) => None,
            })
            .collect();
        let (table, column) = self.names(&scalars)?;
        let table = self.table(table)?;
        let key = self.key(&args);
        // A key that is the same in all rows is looked for once.
        let is_scalar = self.key(&scalars).iter().all(Option::is_some);
        let num_rows = if is_scalar { 1 } else { number_rows };
        let key: Result<Vec<ArrayRef>> = key.iter().map(|arg| arg.to_array(num_rows)).collect();
        let columns: Vec<String> = column.into_iter().map(str::to_owned).collect();
        let found = look_up(&table, &key?, &columns).map_err(to_datafusion)?;
        if is_scalar {
            return ScalarValue::try_from_array(&found, 0).map(ColumnarValue::Scalar);
        }
        Ok(ColumnarValue::Array(found))
    }
}

/// The column of the rows with these keys, or without a column whether there are any.
fn look_up(
    table: &Pinned,
    key: &[ArrayRef],
    columns: &[String],
) -> darner_engine::Result<ArrayRef> {
    let dimension = table.dimension(columns)?;
    let mut matches = Matches::default();
    dimension.probe(key, &mut matches)?;
    let Some(column) = columns.first() else {
        let found = matches.build_idx().iter();
        let found = found.map(|row| Some(*row != NO_MATCH));
        return Ok(Arc::new(found.collect::<BooleanArray>()));
    };
    let place = dimension.schema().index_of(column).map_err(|error| {
        Error::internal("a dimension lacks the column that it was made for").with_source(error)
    })?;
    dimension.column_of(place, &matches)
}

/// Whether an expression is a lookup in a table of a catalog.
pub(crate) fn looks_into(expr: &Expr, handle: &Arc<StoreHandle>, table: &str) -> bool {
    let Expr::ScalarFunction(call) = expr else {
        return false;
    };
    let lookup = call.func.inner().downcast_ref::<Lookup>();
    let name = match call.args.first() {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten(),
        _ => None,
    };
    let (Some(lookup), Some(name)) = (lookup, name) else {
        return false;
    };
    let found = lookup.catalogs.find(name);
    found.is_ok_and(|(of, name)| Arc::ptr_eq(&of, handle) && name == table)
}

/// Lets all lookups of a statement look into tables as of its moments.
pub(crate) fn pin_lookups(plan: LogicalPlan, moments: &mut Moments) -> Result<LogicalPlan> {
    let pinned = plan.transform_up_with_subqueries(|plan| {
        plan.map_expressions(|expr| {
            expr.transform_up(|expr| match expr {
                Expr::ScalarFunction(call) => pin(call, moments),
                expr => Ok(Transformed::no(expr)),
            })
        })
    });
    Ok(pinned?.data)
}

fn pin(call: ScalarFunction, moments: &mut Moments) -> Result<Transformed<Expr>> {
    let lookup = call.func.inner().downcast_ref::<Lookup>();
    let name = match call.args.first() {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten(),
        _ => None,
    };
    // What is not written right was refused, or will be.
    let (Some(lookup), Some(name)) = (lookup, name) else {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let (handle, name) = lookup.catalogs.find(name).map_err(to_datafusion)?;
    let Some(table) = moments.table(&handle, &name) else {
        // Made just now.
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    };
    let pinned = Lookup {
        ask: lookup.ask,
        catalogs: Arc::clone(&lookup.catalogs),
        signature: lookup.signature.clone(),
        pinned: Some(Arc::new(Pinned {
            table: table.clone(),
            handle,
            dimension: OnceLock::new(),
        })),
    };
    let func = Arc::new(ScalarUDF::new_from_impl(pinned));
    let call = ScalarFunction::new_udf(func, call.args);
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}
