//! Statements about views: `CREATE`, `REFRESH`, `EXPLAIN` and `DROP MATERIALIZED VIEW`.
//!
//! DataFusion knows none of them. They are read here, before it sees a statement, and planned as a node of its plans, so
//! that they go the way of all statements: what a statement may do is told from its plan.

use std::{cmp::Ordering, fmt, sync::Arc};

use arrow_array::{RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use darner_engine::Error;
use datafusion::{
    common::{DFSchema, DFSchemaRef, TableReference, internal_err, plan_err},
    dataframe::DataFrame,
    error::Result,
    execution::SessionState,
    logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore},
    prelude::SessionContext,
    sql::{
        parser::Statement,
        sqlparser::{
            ast::{self, Ident, ObjectName},
            dialect::Dialect,
            keywords::Keyword,
            parser::Parser,
            tokenizer::Token,
        },
    },
};

use super::{
    define::{FactsKind, StoredView},
    explain, query,
    refresh::{NewView, RefreshOptions, Views},
};
use crate::{create::stored_name, error::to_datafusion, guard::Needs, plan::Answer};

/// A statement about a view.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) enum ViewStatement {
    Create {
        name: ObjectName,
        new: NewView,
    },
    Refresh {
        name: ObjectName,
        files: Vec<String>,
        rebuild: bool,
    },
    Drop {
        names: Vec<ObjectName>,
        if_exists: bool,
    },
    Explain {
        name: ObjectName,
    },
}

impl ViewStatement {
    /// Reads a statement. `None` if it is about no view.
    pub(crate) fn parse(sql: &str, dialect: &dyn Dialect) -> Result<Option<Self>> {
        let Ok(mut parser) = Parser::new(dialect).try_with_sql(sql) else {
            // Whoever reads it next says what is wrong.
            return Ok(None);
        };
        let is_explain = |parser: &mut Parser<'_>| {
            parser.parse_keywords(&[Keyword::EXPLAIN, Keyword::MATERIALIZED, Keyword::VIEW])
        };
        if parser.parse_keywords(&[Keyword::REFRESH, Keyword::MATERIALIZED, Keyword::VIEW]) {
            return parse_refresh(&mut parser).map(Some);
        }
        if is_explain(&mut parser) {
            let name = parser.parse_object_name(false)?;
            end(&mut parser)?;
            return Ok(Some(Self::Explain { name }));
        }
        let is_create = is_create(&mut parser);
        let is_drop = parser.parse_keywords(&[Keyword::DROP, Keyword::MATERIALIZED, Keyword::VIEW]);
        if !is_create && !is_drop {
            return Ok(None);
        }
        let mut parser = Parser::new(dialect).try_with_sql(sql)?;
        let statement = parser.parse_statement()?;
        end(&mut parser)?;
        Self::of(statement).map(Some)
    }

    /// Takes a statement that the parser knows.
    pub(crate) fn of(statement: ast::Statement) -> Result<Self> {
        match statement {
            ast::Statement::CreateView(create) if create.materialized => Self::of_create(create),
            ast::Statement::Drop {
                object_type: ast::ObjectType::MaterializedView,
                if_exists,
                names,
                ..
            } => Ok(Self::Drop { names, if_exists }),
            other => plan_err!("not a statement about a materialized view: `{other}`"),
        }
    }

    fn of_create(create: ast::CreateView) -> Result<Self> {
        let is_plain = !create.or_alter
            && !create.temporary
            && create.cluster_by.is_empty()
            && create.comment.is_none()
            && create.to.is_none()
            && create.params.is_none()
            && matches!(create.options, ast::CreateTableOptions::None)
            && create
                .columns
                .iter()
                .all(|c| c.data_type.is_none() && c.options.is_none());
        if !is_plain {
            return plan_err!(
                "a materialized view is written CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] name [(column, ...)] \
                 AS SELECT ...; it has no other parts"
            );
        }
        if create.or_replace && create.if_not_exists {
            return plan_err!("IF NOT EXISTS and OR REPLACE exclude each other");
        }
        let columns = create.columns.iter().map(|column| text_of(&column.name));
        let new = NewView {
            name: String::new(),
            columns: columns.collect(),
            query: query::written(&Statement::Statement(Box::new(ast::Statement::Query(
                create.query,
            ))))?,
            or_replace: create.or_replace,
            if_not_exists: create.if_not_exists,
        };
        Ok(Self::Create {
            name: create.name,
            new,
        })
    }
}

fn is_create(parser: &mut Parser<'_>) -> bool {
    let or_replace = [
        Keyword::CREATE,
        Keyword::OR,
        Keyword::REPLACE,
        Keyword::MATERIALIZED,
        Keyword::VIEW,
    ];
    let plain = [Keyword::CREATE, Keyword::MATERIALIZED, Keyword::VIEW];
    parser.parse_keywords(&or_replace) || parser.parse_keywords(&plain)
}

/// What follows `REFRESH MATERIALIZED VIEW`.
fn parse_refresh(parser: &mut Parser<'_>) -> Result<ViewStatement> {
    let name = parser.parse_object_name(false)?;
    let (mut files, mut rebuild) = (Vec::new(), false);
    if parser.parse_keyword(Keyword::FROM) {
        loop {
            files.push(parser.parse_literal_string()?);
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
    } else if matches!(&parser.peek_token().token, Token::Word(word) if word.value.eq_ignore_ascii_case("rebuild"))
    {
        parser.next_token();
        rebuild = true;
    }
    end(parser)?;
    Ok(ViewStatement::Refresh {
        name,
        files,
        rebuild,
    })
}

/// Fails if something follows.
fn end(parser: &mut Parser<'_>) -> Result<()> {
    while parser.consume_token(&Token::SemiColon) {}
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(());
    }
    plan_err!(
        "a statement about a view ends before `{next}`; it is one of CREATE [OR REPLACE] MATERIALIZED VIEW [IF NOT EXISTS] \
         name AS SELECT ..., REFRESH MATERIALIZED VIEW name [FROM 'files' | REBUILD], EXPLAIN MATERIALIZED VIEW name, DROP \
         MATERIALIZED VIEW [IF EXISTS] name"
    )
}

/// A name as SQL means it: in lower case unless it stands in quotes.
fn text_of(ident: &Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

/// The view that a name means.
fn resolve(state: &SessionState, name: &ObjectName) -> Result<(Views, String)> {
    let parts = name.0.iter().map(|part| match part {
        ast::ObjectNamePart::Identifier(ident) => Ok(text_of(ident)),
        ast::ObjectNamePart::Function(_) => plan_err!("a view's name is no function: `{name}`"),
    });
    let parts = parts.collect::<Result<Vec<String>>>()?;
    let reference = match &parts[..] {
        [table] => TableReference::bare(table.as_str()),
        [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
        [catalog, schema, table] => {
            TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())
        }
        _ => return plan_err!("a view's name has at most three parts: `{name}`"),
    };
    let Some((handle, name)) = stored_name(state, &reference) else {
        return Err(to_datafusion(Error::not_found(format!(
            "there is no store in which the view could be: view=`{reference}`"
        ))));
    };
    let views = Views {
        handle,
        num_threads: state.config().target_partitions(),
    };
    Ok((views, name))
}

/// A statement about a view in a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ViewNode {
    pub(crate) statement: ViewStatement,
    /// What of it names files.
    pub(crate) file: Option<String>,
    schema: DFSchemaRef,
}

impl ViewNode {
    /// Plans a statement: finds out what it would do.
    pub(crate) fn plan(state: &SessionState, statement: ViewStatement) -> Result<LogicalPlan> {
        let file = file_of(state, &statement)?;
        let fields = match &statement {
            ViewStatement::Create { .. } | ViewStatement::Refresh { .. } => {
                vec![Field::new("count", DataType::UInt64, false)]
            }
            ViewStatement::Drop { .. } => Vec::new(),
            ViewStatement::Explain { .. } => vec![
                Field::new("property", DataType::Utf8, false),
                Field::new("value", DataType::Utf8, false),
            ],
        };
        let schema = DFSchema::try_from(Schema::new(fields))?;
        Ok(LogicalPlan::Extension(Extension {
            node: Arc::new(Self {
                statement,
                file,
                schema: Arc::new(schema),
            }),
        }))
    }

    /// The statement about a view that a plan is.
    pub(crate) fn of(plan: &LogicalPlan) -> Option<&Self> {
        match plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<Self>(),
            _ => None,
        }
    }

    /// What kind of statement it is.
    pub(crate) fn what(&self) -> &'static str {
        match self.statement {
            ViewStatement::Create { .. } => "CREATE MATERIALIZED VIEW",
            ViewStatement::Refresh { .. } => "REFRESH MATERIALIZED VIEW",
            ViewStatement::Drop { .. } => "DROP MATERIALIZED VIEW",
            ViewStatement::Explain { .. } => "EXPLAIN MATERIALIZED VIEW",
        }
    }

    /// What running it gives.
    pub(crate) fn answer(&self) -> Answer {
        match self.statement {
            ViewStatement::Create { .. } | ViewStatement::Refresh { .. } => Answer::Count,
            ViewStatement::Drop { .. } => Answer::Nothing,
            ViewStatement::Explain { .. } => Answer::Rows,
        }
    }

    /// What the store must be open for.
    pub(crate) fn needs(&self) -> Needs {
        match self.statement {
            ViewStatement::Create { .. } => Needs::Create,
            ViewStatement::Refresh { .. } | ViewStatement::Drop { .. } => Needs::Write,
            ViewStatement::Explain { .. } => Needs::Read,
        }
    }

    /// Does what the statement says.
    pub(crate) async fn run(&self, context: &SessionContext) -> Result<DataFrame> {
        let state = context.state();
        let schema = Arc::clone(self.schema.inner());
        let rows = match &self.statement {
            ViewStatement::Create { name, new } => {
                let (views, name) = resolve(&state, name)?;
                if context.table_exist(TableReference::bare(name.clone()))?
                    && views.handle.store().table(&name).is_err()
                {
                    return Err(to_datafusion(crate::create::taken(&name)));
                }
                let new = NewView {
                    name,
                    ..new.clone()
                };
                let report = views.create(&new, None).await?;
                let count = UInt64Array::from(vec![report.num_groups]);
                RecordBatch::try_new(schema, vec![Arc::new(count)])?
            }
            ViewStatement::Refresh {
                name,
                files,
                rebuild,
            } => {
                let (views, name) = resolve(&state, name)?;
                let options = RefreshOptions {
                    files: files.clone(),
                    rebuild: *rebuild,
                    ..RefreshOptions::default()
                };
                let report = views.refresh(&name, &options).await?;
                let count = UInt64Array::from(vec![report.num_groups + report.num_groups_removed]);
                RecordBatch::try_new(schema, vec![Arc::new(count)])?
            }
            ViewStatement::Drop { names, if_exists } => {
                for name in names {
                    let (views, name) = resolve(&state, name)?;
                    views.drop(&name, *if_exists).await?;
                }
                return context.read_empty();
            }
            ViewStatement::Explain { name } => {
                let (views, name) = resolve(&state, name)?;
                let lines = explain::lines(&views, &name).await?;
                let (names, texts): (Vec<String>, Vec<String>) = lines.into_iter().unzip();
                let columns: Vec<arrow_array::ArrayRef> = vec![
                    Arc::new(StringArray::from(names)),
                    Arc::new(StringArray::from(texts)),
                ];
                RecordBatch::try_new(schema, columns)?
            }
        };
        context.read_batch(rows)
    }
}

/// What of a statement names files, if something does.
fn file_of(state: &SessionState, statement: &ViewStatement) -> Result<Option<String>> {
    match statement {
        ViewStatement::Create { name, new } => {
            let base = query::base(1)?;
            let mut parsed = query::parse(&base, &new.query)?;
            // Without a store, which is then made, there are no tables.
            let store = resolve(state, name).ok();
            let store = store.map(|(views, _)| views.handle.store());
            let is_table = |name: &str| store.as_ref().is_some_and(|s| s.table(name).is_ok());
            let files = query::files_of(&mut parsed, &is_table);
            let file = files.first();
            Ok(file.map(|file| format!("CREATE MATERIALIZED VIEW ... FROM '{file}'")))
        }
        ViewStatement::Refresh { name, files, .. } => {
            let (views, name) = resolve(state, name)?;
            if let Some(file) = files.first() {
                return Ok(Some(format!("REFRESH MATERIALIZED VIEW ... FROM '{file}'")));
            }
            let view = StoredView::get(&views.handle.store(), &name).map_err(to_datafusion)?;
            let definition = &view.definition;
            let base = query::base(1)?;
            let mut parsed = query::parse(&base, &definition.query)?;
            let store = views.handle.store();
            let reads_files = definition.facts_kind() == Some(FactsKind::Files)
                || !query::files_of(&mut parsed, &|name| store.table(name).is_ok()).is_empty();
            Ok(reads_files.then(|| format!("REFRESH MATERIALIZED VIEW {name}")))
        }
        ViewStatement::Drop { .. } | ViewStatement::Explain { .. } => Ok(None),
    }
}

impl PartialOrd for ViewNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.statement.partial_cmp(&other.statement)
    }
}

impl UserDefinedLogicalNodeCore for ViewNode {
    fn name(&self) -> &'static str {
        "MaterializedView"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.statement {
            ViewStatement::Create { name, .. } => format!("create {name}"),
            ViewStatement::Refresh { name, .. } => format!("refresh {name}"),
            ViewStatement::Drop { .. } => "drop".to_owned(),
            ViewStatement::Explain { name } => format!("explain {name}"),
        };
        write!(f, "MaterializedView: {what}")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        if !exprs.is_empty() || !inputs.is_empty() {
            return internal_err!("a statement about a view has no inputs");
        }
        Ok(self.clone())
    }
}
