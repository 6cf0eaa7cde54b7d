//! The names behind FROM that may stand for files.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{self, VisitMut, VisitorMut},
};

/// Asks `path_of` for the path behind each plain name in a query that the query does not define itself, in a WITH. Where
/// there is one, it takes the place of the name, which becomes its alias: columns may be named by it.
pub(super) fn place(
    statement: &mut Statement,
    path_of: &mut dyn FnMut(&ast::Ident) -> Option<String>,
) {
    let mut placing = Placing {
        path_of,
        scopes: Vec::new(),
    };
    if let Statement::Statement(statement) = statement {
        // Nothing breaks off.
        let _: ControlFlow<()> = statement.visit(&mut placing);
    }
}

/// What DataFusion takes an identifier for.
pub(super) fn known_as(ident: &ast::Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

struct Placing<'p> {
    path_of: &'p mut dyn FnMut(&ast::Ident) -> Option<String>,
    /// The queries around this place, outermost first.
    scopes: Vec<Scope>,
}

/// The names that a query defines.
struct Scope {
    names: Vec<String>,
    /// Queries directly inside of it that were visited to their ends. Those of the WITH are the first ones, in their order,
    /// and a name is known behind its own: in `WITH t AS (SELECT * FROM t)` the second `t` is another one.
    num_visited: usize,
    is_recursive: bool,
}

impl Scope {
    fn of(query: &ast::Query) -> Self {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        Self {
            names: tables.map(|table| known_as(&table.alias.name)).collect(),
            num_visited: 0,
            is_recursive: query.with.as_ref().is_some_and(|with| with.recursive),
        }
    }

    fn knows(&self, name: &str) -> bool {
        let num_known = self.num_visited + usize::from(self.is_recursive);
        self.names.iter().take(num_known).any(|known| known == name)
    }
}

impl VisitorMut for Placing<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<()> {
        self.scopes.push(Scope::of(query));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(around) = self.scopes.last_mut() {
            around.num_visited += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        let ast::TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let [ast::ObjectNamePart::Identifier(ident)] = &mut name.0[..] else {
            return ControlFlow::Continue(());
        };
        let known = known_as(ident);
        if self.scopes.iter().any(|scope| scope.knows(&known)) {
            return ControlFlow::Continue(());
        }
        if let Some(path) = (self.path_of)(ident) {
            let said = ast::Ident {
                quote_style: ident.quote_style.map(|_| '"'),
                ..ident.clone()
            };
            alias.get_or_insert_with(|| ast::TableAlias {
                explicit: true,
                name: said,
                columns: Vec::new(),
                at: None,
            });
            *ident = ast::Ident::with_quote(ident.quote_style.unwrap_or('\''), path);
        }
        ControlFlow::Continue(())
    }
}
