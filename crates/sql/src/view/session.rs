//! Views for synchronous programs.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use darner_engine::{Dimension, Error, Result};
use datafusion::error::DataFusionError;

use super::{
    define::{Relation, StoredView, view_names},
    explain::ViewInfo,
    push::ViewWriter,
    refresh::{NewView, RefreshKind, RefreshOptions, RefreshReport, Views},
    verify::ViewProblems,
};
use crate::{error::from_datafusion, session::Session};

/// Views. These functions are for the program that has the session: what statements may do binds statements alone.
impl Session {
    /// Makes a view and counts all rows that there are. With `or_replace`, one that is there is replaced by one commit.
    ///
    /// Paths in the query mean files as in any `FROM`; those that do not begin at the root are looked for in the current
    /// directory, now and at every refresh.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](darner_engine::ErrorKind::Conflict) if the name is taken; those of the query.
    ///
    /// # Examples
    /// ```
    /// # fn make(session: &darner_sql::Session) -> darner_engine::Result<()> {
    /// let query = "SELECT carrier, count(*) AS flights FROM 'flights/*.parquet' GROUP BY carrier";
    /// session.create_view("by_carrier", query, false)?;
    /// session.refresh_view("by_carrier", &Default::default())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_view(&self, name: &str, query: &str, or_replace: bool) -> Result<RefreshReport> {
        self.create(name, query, or_replace, None)
    }

    /// Makes a view of rows that programs will push: the query names them as a table with these columns.
    ///
    /// # Errors
    /// As [`create_view`](Self::create_view); [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for a query that
    /// cannot be refreshed by new rows alone.
    pub fn create_pushed_view(
        &self,
        name: &str,
        query: &str,
        facts: &str,
        columns: &Schema,
    ) -> Result<RefreshReport> {
        let relation = Relation::new(facts, columns, Vec::new());
        self.create(name, query, false, Some(relation))
    }

    fn create(
        &self,
        name: &str,
        query: &str,
        or_replace: bool,
        pushed: Option<Relation>,
    ) -> Result<RefreshReport> {
        let new = NewView {
            name: name.to_owned(),
            query: query.to_owned(),
            or_replace,
            ..NewView::default()
        };
        self.with_views(move |views| async move { views.create(&new, pushed.as_ref()).await })
    }

    /// Makes a view if there is none of that name, and makes it anew if it has another query. What it counts is as of its
    /// last refresh otherwise: refresh it.
    ///
    /// # Errors
    /// As [`create_view`](Self::create_view).
    pub fn ensure_view(&self, name: &str, query: &str) -> Result<RefreshReport> {
        let (name, query) = (name.to_owned(), query.to_owned());
        self.with_views(move |views| async move { views.ensure(&name, &query).await })
    }

    /// Refreshes a view.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) if there is none;
    /// [`ErrorKind::Data`](darner_engine::ErrorKind::Data), naming the file, if one whose rows are counted has changed or
    /// is gone. The view is as it was then.
    pub fn refresh_view(&self, name: &str, options: &RefreshOptions) -> Result<RefreshReport> {
        let (name, options) = (name.to_owned(), options.clone());
        self.with_views(move |views| async move { views.refresh(&name, &options).await })
    }

    /// Drops a view.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) if there is none.
    pub fn drop_view(&self, name: &str) -> Result<()> {
        let name = name.to_owned();
        self.with_views(move |views| async move { views.drop(&name, false).await })
    }

    /// The names of the store's views, sorted.
    pub fn view_names(&self) -> Vec<String> {
        self.views()
            .map_or_else(|_| Vec::new(), |views| view_names(&views.handle.store()))
    }

    /// What is known of a view.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) if there is none.
    pub fn view(&self, name: &str) -> Result<ViewInfo> {
        let name = name.to_owned();
        self.with_views(move |views| async move { views.info(&name).await })
    }

    /// Computes a view from its sources again, and compares.
    ///
    /// # Errors
    /// Those of the sources; [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) if rows were pushed, which cannot
    /// be read again.
    pub fn verify_view(&self, name: &str) -> Result<ViewProblems> {
        let name = name.to_owned();
        self.with_views(move |views| async move { views.verify(&name).await })
    }

    /// The columns of a view's groups, by which [`view_get`](Self::view_get) finds its rows.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for a view without groups.
    pub fn view_key_schema(&self, name: &str) -> Result<SchemaRef> {
        let name = name.to_owned();
        self.with_views(move |views| async move { views.key_schema(&name).await })
    }

    /// The rows of a view for these groups: `None` for one that is not there, or that `HAVING` leaves out.
    ///
    /// # Shapes
    /// `keys`: one array for each column of [`view_key_schema`](Self::view_key_schema), all of one length; a null is the
    /// group of nulls. A batch of one row for each.
    /// # Errors
    /// As [`view_key_schema`](Self::view_key_schema); for values of other types.
    pub fn view_get(&self, name: &str, keys: &[ArrayRef]) -> Result<Vec<Option<RecordBatch>>> {
        let (name, keys) = (name.to_owned(), keys.to_vec());
        self.with_views(move |views| async move { views.get(&name, &keys).await })
    }

    /// All rows of a view.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) if there is none.
    pub fn view_rows(&self, name: &str) -> Result<RecordBatch> {
        let name = name.to_owned();
        self.with_views(move |views| async move { views.rows(&name).await })
    }

    /// The rows of a view as a dimension with these key columns. Rows in which one of them is null are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for columns that cannot be a key, or by which rows do
    /// not differ.
    pub fn view_dimension(&self, name: &str, key: &[String]) -> Result<Dimension> {
        let (name, key) = (name.to_owned(), key.to_vec());
        self.with_views(move |views| async move { views.dimension(&name, &key).await })
    }

    /// Begins to give rows to a view.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](darner_engine::ErrorKind::NotFound) if there is none;
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for one of a table, or one that is computed anew each
    /// time.
    pub fn view_writer(&self, name: &str) -> Result<ViewWriter<'_>> {
        ViewWriter::open(self, self.views()?, name)
    }

    fn views(&self) -> Result<Views> {
        let handle = self.handle().ok_or_else(|| {
            Error::not_found("there is no store in which views could be; register one")
        })?;
        Ok(Views {
            handle,
            num_threads: self.options().num_threads,
        })
    }

    fn with_views<T, F>(&self, work: impl FnOnce(Views) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, DataFusionError>> + Send,
    {
        let views = self.views()?;
        self.worker()
            .run(async move { work(views).await.map_err(from_datafusion) })
    }
}

impl Views {
    /// Makes a view if there is none of that name with that query.
    async fn ensure(&self, name: &str, query: &str) -> Result<RefreshReport, DataFusionError> {
        let store = self.handle.store();
        let found = StoredView::find(&store, name).map_err(crate::error::to_datafusion)?;
        let whole = self.whole_query(query, None)?;
        if let Some(view) = &found
            && view.definition.query == whole
        {
            let mut report = RefreshReport::new(name, RefreshKind::Existed);
            report.version = view.table.version();
            return Ok(report);
        }
        let new = NewView {
            name: name.to_owned(),
            query: query.to_owned(),
            or_replace: found.is_some(),
            ..NewView::default()
        };
        self.create(&new, None).await
    }
}
