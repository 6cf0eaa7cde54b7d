//! `COPY ... TO` a file that is there as a whole or not at all.
//!
//! DataFusion ends a file in good order also if the query that fills it fails, so that a part of the rows looks like all
//! of them, and stands in the place of what was there. So a copy to one local file goes to a temporary name beside it.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow_schema::SchemaRef;
use darner_engine::Error;
use darner_remote::shown;
use datafusion::{
    catalog::Session,
    common::{
        GetExt, Result, Statistics,
        config::ConfigOptions,
        internal_err,
        runtime::SpawnedTask,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::{
        file_format::{
            FileFormat, FileFormatFactory, file_compression_type::FileCompressionType,
            file_type_to_format, format_as_file_type,
        },
        listing::ListingTableUrl,
        physical_plan::{FileOutputMode, FileScanConfig, FileSinkConfig, FileSource},
        table_schema::TableSchema,
    },
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{LogicalPlan, dml::CopyTo},
    object_store::{ObjectMeta, ObjectStore},
    optimizer::AnalyzerRule,
    physical_expr::{Distribution, LexRequirement, PhysicalExpr},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan,
        InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::TryStreamExt;

use crate::{compact::CompactViewsExec, error::to_datafusion};

/// The extension of the format that writes buffers as they are.
const ARROW: &str = "arrow";

/// Lets every `COPY` of a session write whole files.
#[derive(Debug)]
pub(crate) struct WholeCopies;

impl AnalyzerRule for WholeCopies {
    fn name(&self) -> &'static str {
        "darner_whole_copies"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_down(|plan| {
            let LogicalPlan::Copy(copy) = plan else {
                return Ok(Transformed::no(plan));
            };
            let Ok(factory) = file_type_to_format(&copy.file_type) else {
                return Ok(Transformed::no(LogicalPlan::Copy(copy)));
            };
            let file_type = format_as_file_type(Arc::new(WholeFactory(factory)));
            Ok(Transformed::yes(LogicalPlan::Copy(CopyTo {
                file_type,
                ..copy
            })))
        });
        Ok(rewritten?.data)
    }
}

#[derive(Debug)]
struct WholeFactory(Arc<dyn FileFormatFactory>);

impl GetExt for WholeFactory {
    fn get_ext(&self) -> String {
        self.0.get_ext()
    }
}

impl FileFormatFactory for WholeFactory {
    fn create(
        &self,
        state: &dyn Session,
        options: &HashMap<String, String>,
    ) -> Result<Arc<dyn FileFormat>> {
        Ok(Arc::new(WholeFormat(self.0.create(state, options)?)))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(WholeFormat(self.0.default()))
    }
}

/// A format whose files get their name when they are complete.
#[derive(Debug)]
struct WholeFormat(Arc<dyn FileFormat>);

#[async_trait::async_trait]
impl FileFormat for WholeFormat {
    fn get_ext(&self) -> String {
        self.0.get_ext()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.0.get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        self.0.compression_type()
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        self.0.infer_schema(state, store, objects).await
    }

    async fn infer_stats(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        table_schema: SchemaRef,
        object: &ObjectMeta,
    ) -> Result<Statistics> {
        self.0.infer_stats(state, store, table_schema, object).await
    }

    async fn create_physical_plan(
        &self,
        state: &dyn Session,
        config: FileScanConfig,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.0.create_physical_plan(state, config).await
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        mut config: FileSinkConfig,
        order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = if self.get_ext() == ARROW {
            Arc::new(CompactViewsExec::new(input)) as Arc<dyn ExecutionPlan>
        } else {
            input
        };
        if let Some(target) = config.table_paths.iter().find(|url| url.scheme() != "file") {
            // DataFusion would complete an upload that has failed.
            return Err(to_datafusion(Error::invalid(format!(
                "COPY writes files of this machine: file=`{}`; darner sql -o writes others",
                shown(Path::new(target.as_str()))
            ))));
        }
        let Some(file) = WholeFile::of(&config) else {
            let writer = self
                .0
                .create_writer_physical_plan(input, state, config, order);
            return writer.await;
        };
        config.table_paths = vec![file.url.clone()];
        config.file_output_mode = FileOutputMode::SingleFile;
        let writer = self
            .0
            .create_writer_physical_plan(input, state, config, order);
        Ok(Arc::new(WholeFileExec {
            writer: writer.await?,
            file: Arc::new(file),
        }))
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        self.0.file_source(table_schema)
    }
}

/// A local file, and the temporary name that it has until it is complete.
#[derive(Debug)]
struct WholeFile {
    path: PathBuf,
    temporary: PathBuf,
    url: ListingTableUrl,
}

impl WholeFile {
    /// `None` for what is not one local file.
    fn of(config: &FileSinkConfig) -> Option<Self> {
        static NUM_FILES: AtomicU64 = AtomicU64::new(0);

        let [target] = config.table_paths.as_slice() else {
            return None;
        };
        // Partitions are files of their own, whatever the mode.
        let has_partitions = !config.table_partition_cols.is_empty();
        if has_partitions
            || target.scheme() != "file"
            || !config.file_output_mode.single_file_output(target)
        {
            return None;
        }
        let mut url = target.get_url().clone();
        let path = url.to_file_path().ok()?;
        let name = path.file_name()?.to_str()?;
        let number = NUM_FILES.fetch_add(1, Ordering::Relaxed);
        let temporary_name = format!(".{name}.{}-{number}.tmp", std::process::id());
        url.path_segments_mut().ok()?.pop().push(&temporary_name);
        Some(Self {
            temporary: path.with_file_name(temporary_name),
            url: ListingTableUrl::try_new(url, None).ok()?,
            path,
        })
    }

    /// Gives the file its name, on disk too.
    fn finish(&self) -> darner_engine::Result<()> {
        let cannot = |what: &str, path: &Path| {
            let action = format!("cannot {what}: path=`{}`", path.display());
            |error| Error::io(action, error)
        };
        let file = File::open(&self.temporary);
        file.and_then(|file| file.sync_all())
            .map_err(cannot("write", &self.path))?;
        std::fs::rename(&self.temporary, &self.path).map_err(cannot("rename to", &self.path))?;
        if let Some(dir) = self.path.parent() {
            let dir_file = File::open(dir);
            dir_file
                .and_then(|dir| dir.sync_all())
                .map_err(cannot("write", dir))?;
        }
        Ok(())
    }
}

/// Removes what was written, unless it was given its name.
struct Unfinished(Arc<WholeFile>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already if all went well.
        let _ = std::fs::remove_file(&self.0.temporary);
    }
}

/// Runs a writer, and gives its file the name that was asked for if it succeeds.
#[derive(Debug)]
struct WholeFileExec {
    writer: Arc<dyn ExecutionPlan>,
    file: Arc<WholeFile>,
}

impl DisplayAs for WholeFileExec {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file.path.display();
        match kind {
            DisplayFormatType::TreeRender => writeln!(f, "file={path}"),
            _ => write!(f, "WholeFileExec: file={path}"),
        }
    }
}

impl ExecutionPlan for WholeFileExec {
    fn name(&self) -> &'static str {
        "WholeFileExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.writer.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.writer]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // There is one row, the count, and one file to be named.
        vec![false]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(writer), true) = (children.pop(), children.is_empty()) else {
            return internal_err!("a file is written by one plan");
        };
        Ok(Arc::new(Self {
            writer,
            file: Arc::clone(&self.file),
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(
            children,
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let unfinished = Unfinished(Arc::clone(&self.file));
        let written = self.writer.execute(partition, context)?;
        let schema = written.schema();
        let file = Arc::clone(&self.file);
        let count = async move {
            let unfinished = unfinished;
            let count: Vec<_> = written.try_collect().await?;
            let finished = SpawnedTask::spawn_blocking(move || file.finish());
            let finished = finished
                .join()
                .await
                .map_err(|error| Error::internal("a file did not get its name").with_source(error));
            finished
                .and_then(|finished| finished)
                .map_err(to_datafusion)?;
            drop(unfinished);
            let count = count.into_iter().map(Ok::<_, DataFusionError>);
            Ok::<_, DataFusionError>(futures::stream::iter(count))
        };
        let count = futures::stream::once(count).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, count)))
    }
}
