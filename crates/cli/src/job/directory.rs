//! Enrichments whose output is a directory: what is made of each input is finished apart from the others, and not made
//! again while input, dimensions and step are as they were.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
    time::Instant,
};

use arrow_schema::SchemaRef;
use darner_engine::{Error, Format, Result as EngineResult, Sink, SinkOptions, SourceOptions};
use darner_store::Store;
use indicatif::{HumanBytes, HumanCount};

use super::{
    file::Job,
    manifest::{Entry, Manifest},
    memory::as_json,
    split::{Files, Split, SplitSink},
    step::{ChangeName, EnrichStep, OneOrMore, VanishedName},
    steps::{plan, skipped},
};
use crate::{
    context::Context,
    enrichment::{self, Dimensions, Done, Plan, execute_on},
    error::{Failure, Result},
    files::{check_outputs, input_paths},
    fingerprint::Fingerprint,
    metrics::tell_report,
    print,
    report::Report,
    storage::{
        create, is_url, make_directory, make_parent, open, remove, shown, survey, write_file,
    },
};

/// An input, and what it is called in the output directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    /// Relative, without an extension.
    pub(super) stem: PathBuf,
}

/// What there is to do in a directory.
pub(super) struct Todo {
    pub(super) inputs: Vec<Input>,
    /// Places of those that have to be done, and why.
    pub(super) due: Vec<(usize, &'static str)>,
    /// Names of entries whose inputs are not there any more.
    pub(super) vanished: Vec<String>,
    manifest: Manifest,
    step: String,
    versions: Vec<u64>,
}

/// Makes what is not made yet.
pub(super) fn run(
    context: &Context,
    job: &Job,
    store: &Arc<Store>,
    name: &str,
    step: &EnrichStep,
) -> Result<()> {
    let started = Instant::now();
    let root = job.path(&step.to);
    for directory in
        std::iter::once(&root).chain(&step.unmatched.as_ref().map(|path| job.path(path)))
    {
        make_directory(directory)?;
    }
    let mut todo = todo(job, store, step)?;
    let base = Plan {
        report: None,
        ..plan(job, name, step, Vec::new())?
    };
    let num_due = todo.due.len();
    let mut is_done: HashSet<usize> = (0..todo.inputs.len()).collect();
    for (place, _) in &todo.due {
        is_done.remove(place);
    }
    // A run that was killed may have left them beside those that take their place.
    remove_stale(&root, todo.manifest.entries().values())?;
    todo.manifest.forget_stale()?;
    if !todo.due.is_empty() {
        let dimensions = Dimensions::load(context, store, &base)?;
        let expected = expected_schema(&root, &todo, &is_done);
        let mut worker = Worker {
            context,
            store_path: store.dir(),
            job,
            step,
            root: &root,
            base: &base,
            dimensions: &dimensions,
            expected,
        };
        for (num_done, (place, why)) in todo.due.clone().into_iter().enumerate() {
            let input = todo.inputs[place].clone();
            let old = todo.manifest.entries().get(&key(&input.stem)).cloned();
            let entry = worker.enrich(&input, old.as_ref(), &todo.step, &todo.versions);
            let entry = match entry {
                Ok(entry) => entry,
                Err(failure) => {
                    // The reason to stop is told, not that of this.
                    let _ = todo.manifest.flush();
                    return Err(stopped(failure, &input, num_done, num_due));
                }
            };
            print::detail(
                context,
                format_args!(
                    "{name}: {}: {why}; {} written",
                    shown(&input.path),
                    print::counted(entry.report.rows_written, "row")
                ),
            );
            todo.manifest.add(entry.clone())?;
            remove_stale(&root, std::iter::once(&entry))?;
        }
    }
    let mut num_removed = 0;
    if step.on_vanished_input == VanishedName::Remove {
        for gone in &todo.vanished {
            num_removed += remove_entry(job, step, &root, &mut todo.manifest, gone)?;
        }
    }
    todo.manifest.flush()?;
    let report = todo.report();
    skipped(name, num_due == 0);
    tell_report(name, &report);
    if let Some(path) = &step.report {
        write_file(
            &job.path(path),
            format!("{}\n", report.to_json()?).as_bytes(),
        )?;
    }
    say(
        context,
        name,
        step,
        &root,
        &todo,
        &report,
        started.elapsed().as_secs_f64(),
    );
    if num_removed > 0 {
        print::note(
            context,
            format_args!(
                "  {} removed whose inputs are gone",
                print::counted(num_removed as u64, "file")
            ),
        );
    } else if !todo.vanished.is_empty() {
        print::note(
            context,
            format_args!(
                "  {} inputs are gone; what was made of them stays (on_vanished_input = \"keep\")",
                todo.vanished.len()
            ),
        );
    }
    Ok(())
}

/// Compares inputs, dimensions and step with what is finished. Changes nothing.
pub(super) fn todo(job: &Job, store: &Store, step: &EnrichStep) -> Result<Todo> {
    let inputs = inputs(&job.patterns(&step.from)?)?;
    let root = job.path(&step.to);
    survey(&root);
    let manifest = Manifest::read(&root)?;
    let joins = step.joins()?;
    let versions = joins
        .iter()
        .map(|join| Ok(store.table(&join.table)?.version().number))
        .collect::<Result<Vec<u64>>>()?;
    let identity = identity(job, step)?;
    let mut due = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        let why = match manifest.entries().get(&key(&input.stem)) {
            None => Some("not made yet"),
            Some(entry) if entry.step != identity => Some("the step has changed in the job file"),
            Some(entry)
                if entry.versions != versions && step.on_dimension_change == ChangeName::Redo =>
            {
                Some("a dimension has changed")
            }
            Some(entry) if entry.input != Fingerprint::of(&input.path)? => {
                Some("the file has changed")
            }
            Some(entry) if !is_there(&root, entry) => {
                Some("an output is not there any more, or not as it was written")
            }
            Some(_) => None,
        };
        due.extend(why.map(|why| (place, why)));
    }
    let names: HashSet<String> = inputs.iter().map(|input| key(&input.stem)).collect();
    let vanished = manifest
        .entries()
        .keys()
        .filter(|name| !names.contains(*name));
    let vanished = vanished.cloned().collect();
    Ok(Todo {
        inputs,
        due,
        vanished,
        manifest,
        step: identity,
        versions,
    })
}

/// The files that patterns stand for, and what each is called: its path below the pattern's fixed directory.
pub(super) fn inputs(patterns: &[String]) -> Result<Vec<Input>> {
    let mut all: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mut inputs = Vec::new();
    for pattern in patterns {
        if pattern == "-" {
            return Err(Error::invalid(
                "standard input has no name for a file in a directory; let `to` be a file",
            )
            .into());
        }
        let path = Path::new(pattern);
        let found = input_paths(std::slice::from_ref(pattern))?;
        let base = if is_url(path) {
            remote_base(path, &found)
        } else if path.is_dir() {
            path.to_owned()
        } else if path.exists() {
            path.parent().unwrap_or(Path::new("")).to_owned()
        } else {
            let is_fixed =
                |part: &&std::ffi::OsStr| !part.to_string_lossy().contains(['*', '?', '[']);
            path.iter().take_while(is_fixed).collect()
        };
        for path in found {
            // The query of an address is no part of a name.
            let name = if is_url(&path) {
                PathBuf::from(shown(&path))
            } else {
                path.clone()
            };
            let relative = name.strip_prefix(&base).unwrap_or(&name);
            let stem = without_extension(relative);
            if let Some(other) = all.insert(stem.clone(), path.clone()) {
                if other == path {
                    continue;
                }
                return Err(Error::invalid(format!(
                    "two inputs would have one output: file=`{}` file=`{}`; enrich them in steps of their own",
                    shown(&other),
                    shown(&path)
                ))
                .into());
            }
            inputs.push(Input { path, stem });
        }
    }
    Ok(inputs)
}

/// The fixed directory of the URL of a file, a directory or a pattern, and what it stands for.
fn remote_base(url: &Path, found: &[PathBuf]) -> PathBuf {
    let is_fixed = |part: &&std::ffi::OsStr| !part.to_string_lossy().contains(['*', '?', '[']);
    let name = PathBuf::from(shown(url));
    if found == [url] {
        return name.parent().unwrap_or(Path::new("")).to_owned();
    }
    name.iter().take_while(is_fixed).collect()
}

/// A path without `.csv`, `.csv.gz` and the like.
fn without_extension(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    let is_packed = path.extension().is_some_and(|e| e == "gz" || e == "zst");
    if is_packed {
        path.set_extension("");
    }
    let extension = path.extension().and_then(|e| e.to_str());
    if extension.is_some_and(|e| Format::from_extension(e).is_some()) {
        path.set_extension("");
    }
    path
}

/// How an input is found again in the manifest.
fn key(stem: &Path) -> String {
    stem.display().to_string()
}

/// What of a step decides about the content of each file: not where inputs are looked for, nor what must hold.
fn identity(job: &Job, step: &EnrichStep) -> EngineResult<String> {
    let mut value = as_json(step)?;
    if let Some(fields) = value.as_object_mut() {
        for field in [
            "from",
            "to",
            "report",
            "max_miss_rate",
            "min_rows",
            "max_dimension_age",
            "empty_dimension",
            "on_dimension_change",
            "on_vanished_input",
        ] {
            fields.remove(field);
        }
        let store = job.path(&job.store).display().to_string();
        fields.insert("store".to_owned(), store.into());
    }
    let text = value.to_string();
    Ok(format!(
        "{:08x}-{}",
        crc32c::crc32c(text.as_bytes()),
        text.len()
    ))
}

/// Whether all files of an entry are as they were written.
fn is_there(root: &Path, entry: &Entry) -> bool {
    let is_same =
        |path: &Path, known: &Fingerprint| Fingerprint::of(path).is_ok_and(|found| found == *known);
    let mut files = entry.files.iter();
    files.all(|(path, known)| is_same(&root.join(path), known))
        && entry
            .unmatched
            .as_ref()
            .is_none_or(|known| is_same(known.path(), known))
}

/// Removes files that were replaced by others of other names. None of them belongs to another input.
fn remove_stale<'e>(root: &Path, entries: impl Iterator<Item = &'e Entry>) -> Result<()> {
    for path in entries.flat_map(|entry| &entry.stale) {
        remove(&root.join(path))?;
    }
    Ok(())
}

/// A local path from the root, and a remote one as it is.
fn from_root(path: &Path) -> PathBuf {
    if is_url(path) {
        return path.to_owned();
    }
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Removes what was made of an input that is gone, as far as nobody has changed it since.
fn remove_entry(
    job: &Job,
    step: &EnrichStep,
    root: &Path,
    manifest: &mut Manifest,
    name: &str,
) -> Result<usize> {
    let Some(entry) = manifest.entries().get(name).cloned() else {
        return Ok(0);
    };
    let mut num_removed = 0;
    for (path, known) in &entry.files {
        let path = root.join(path);
        if Fingerprint::of(&path).is_ok_and(|found| found == *known) {
            num_removed += usize::from(remove(&path)?);
        }
    }
    // Only where this step writes such files: what a manifest says is not enough to remove a file elsewhere.
    let unmatched = step.unmatched.as_ref().map(|path| job.path(path));
    if let (Some(known), Some(directory)) = (&entry.unmatched, unmatched)
        && known.path().starts_with(from_root(&directory))
        && Fingerprint::of(known.path()).is_ok_and(|found| found == *known)
    {
        num_removed += usize::from(remove(known.path())?);
    }
    manifest.remove(name)?;
    Ok(num_removed)
}

/// The columns of a file that is finished and not to be made again; files beside it have to have the same.
fn expected_schema(
    root: &Path,
    todo: &Todo,
    is_done: &HashSet<usize>,
) -> Option<(PathBuf, SchemaRef)> {
    let mut done: Vec<&usize> = is_done.iter().collect();
    done.sort_unstable();
    done.into_iter().find_map(|&place| {
        let entry = todo
            .manifest
            .entries()
            .get(&key(&todo.inputs[place].stem))?;
        let (path, _) = entry.files.first()?;
        let path = root.join(path);
        let is_typed = Format::from_extension(path.extension()?.to_str()?)
            .is_some_and(|format| !format.is_text());
        let source = is_typed.then(|| open(&path, &SourceOptions::default()));
        let schema = Arc::clone(source?.ok()?.schema());
        Some((path, schema))
    })
}

/// Says which inputs are done when one was not.
fn stopped(failure: Failure, input: &Input, num_done: usize, num_due: usize) -> Failure {
    let input = shown(&input.path);
    let what = format!("{num_done} of {num_due} files are done and stay, {input} is not");
    match failure {
        Failure::Error(error) => Failure::Error(error.context(what)),
        Failure::Gate(message) => Failure::Gate(format!("{what}: {message}")),
        other @ Failure::ClosedPipe => other,
    }
}

impl Todo {
    /// What was made of all inputs, now or before.
    pub(super) fn report(&self) -> Report {
        let mut report = Report::default();
        let names = self.inputs.iter().map(|input| key(&input.stem));
        for entry in names.filter_map(|name| self.manifest.entries().get(&name)) {
            report.add(&entry.report);
        }
        report
    }
}

fn say(
    context: &Context,
    name: &str,
    step: &EnrichStep,
    root: &Path,
    todo: &Todo,
    report: &Report,
    seconds: f64,
) {
    let (num_files, num_due) = (todo.inputs.len(), todo.due.len());
    let rows = HumanCount(report.rows_written);
    let what = if num_due == 0 {
        format!(
            "{name}: unchanged, {num_files} files with {rows} rows in {}",
            shown(root)
        )
    } else {
        format!(
            "{name}: {num_due} of {num_files} files enriched in {seconds:.2} s, the others unchanged; {rows} rows ({}) in {}",
            HumanBytes(report.bytes_written),
            shown(root)
        )
    };
    print::note(context, what);
    for line in report.lines() {
        print::note(context, line);
    }
    if let Some(path) = &step.unmatched {
        print::note(
            context,
            format_args!(
                "  {} in {}",
                print::counted(report.unmatched_rows, "unmatched row"),
                shown(path)
            ),
        );
    }
}

/// Enriches one input after the other.
struct Worker<'w> {
    context: &'w Context,
    store_path: &'w Path,
    job: &'w Job,
    step: &'w EnrichStep,
    root: &'w Path,
    base: &'w Plan,
    dimensions: &'w Dimensions,
    /// A finished file and the columns that it has.
    expected: Option<(PathBuf, SchemaRef)>,
}

/// Where what is made of an input goes.
struct Targets {
    extension: String,
    /// The file in the directory, if there is one for the input as a whole.
    name: PathBuf,
    output: PathBuf,
    unmatched: Option<PathBuf>,
}

impl Worker<'_> {
    fn enrich(
        &mut self,
        input: &Input,
        old: Option<&Entry>,
        step: &str,
        versions: &[u64],
    ) -> Result<Entry> {
        self.context.check_cancel()?;
        let before = Fingerprint::of(&input.path)?;
        let targets = self.targets(input)?;
        let source = open(&input.path, &self.base.source_options)?;
        let plan = Plan {
            name: format!("{} {}", self.base.name, shown(&input.path)),
            inputs: vec![input.path.clone()],
            unmatched: targets.unmatched.clone(),
            ..self.base.clone()
        };
        let target = enrichment::Files {
            inputs: plan.inputs.clone(),
            output: shown(&targets.output),
            unmatched: targets.unmatched.clone(),
        };
        let files = Files::default();
        let (context, dimensions) = (self.context, self.dimensions);
        let done: Done = execute_on(
            context,
            &plan,
            dimensions,
            source,
            &target,
            |schema, metadata| {
                let mut options = plan.sink_options.clone();
                options.format.get_or_insert(Format::Parquet);
                options.metadata = metadata;
                self.open_sink(input, &targets, &files, schema, options)
            },
        )?;
        let paths = std::mem::take(&mut *files.lock().unwrap_or_else(PoisonError::into_inner));
        let files = paths
            .into_iter()
            .map(|path| Ok((path.clone(), Fingerprint::of(&self.root.join(path))?)))
            .collect::<EngineResult<Vec<_>>>()?;
        let mut stale: Vec<PathBuf> = Vec::new();
        if let Some(old) = old {
            let is_gone = |path: &PathBuf| !files.iter().any(|(file, _)| file == path);
            let old = old.files.iter().map(|(path, _)| path).chain(&old.stale);
            stale.extend(old.filter(|path| is_gone(path)).cloned());
        }
        let unmatched = targets.unmatched.as_deref().map(Fingerprint::of);
        Ok(Entry {
            name: key(&input.stem),
            input: before,
            step: step.to_owned(),
            versions: versions.to_vec(),
            files,
            unmatched: unmatched.transpose()?,
            stale,
            report: done.report,
        })
    }

    /// Names the files of an input, and makes their directories.
    fn targets(&self, input: &Input) -> Result<Targets> {
        let extension = extension(self.step, self.base);
        let mut name = input.stem.clone().into_os_string();
        name.push(".");
        name.push(&extension);
        let name = PathBuf::from(name);
        let targets = Targets {
            output: self.root.join(&name),
            unmatched: self
                .step
                .unmatched
                .as_ref()
                .map(|directory| self.job.path(directory).join(&name)),
            extension,
            name,
        };
        let outputs = std::iter::once(&targets.output).chain(&targets.unmatched);
        let outputs: Vec<&Path> = outputs.map(PathBuf::as_path).collect();
        for output in &outputs {
            make_parent(output)?;
        }
        check_outputs(self.store_path, std::slice::from_ref(&input.path), &outputs)?;
        Ok(targets)
    }

    fn open_sink(
        &mut self,
        input: &Input,
        targets: &Targets,
        files: &Files,
        schema: &SchemaRef,
        options: SinkOptions,
    ) -> Result<Box<dyn Sink>> {
        let split = split(self.step);
        let (file_schema, ..) = split.columns(schema)?;
        check_schema(&mut self.expected, &targets.output, &file_schema)?;
        if split.is_needed() {
            let (extension, files) = (&targets.extension, Arc::clone(files));
            let sink = SplitSink::new(
                &split,
                self.root,
                &input.stem,
                extension,
                schema,
                options,
                files,
            );
            return Ok(Box::new(sink?));
        }
        let mut list = files.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(targets.name.clone());
        Ok(create(&targets.output, schema, &options)?)
    }
}

/// How the rows of each input are put into files.
pub(super) fn split(step: &EnrichStep) -> Split {
    Split {
        partition_by: step
            .partition_by
            .as_ref()
            .map_or_else(Vec::new, OneOrMore::to_vec),
        rows_max: step.target_file_rows.map(std::num::NonZero::get),
        bytes_max: step.target_file_bytes.map(|bytes| bytes.0.max(1)),
    }
}

/// The extension of files in the directory.
fn extension(step: &EnrichStep, plan: &Plan) -> String {
    let format = plan.sink_options.format.unwrap_or(Format::Parquet);
    let text = match step.compression {
        Some(crate::args::Compression::Gzip) if format.is_text() => ".gz",
        Some(crate::args::Compression::Zstd) if format.is_text() => ".zst",
        _ => "",
    };
    format!("{}{text}", format.name())
}

/// Fails if a file would have other columns than those beside it: who reads the directory could not.
fn check_schema(
    expected: &mut Option<(PathBuf, SchemaRef)>,
    path: &Path,
    schema: &SchemaRef,
) -> Result<()> {
    let Some((other, known)) = expected else {
        *expected = Some((path.to_owned(), Arc::clone(schema)));
        return Ok(());
    };
    let columns = |schema: &SchemaRef| -> Vec<String> {
        let fields = schema.fields().iter();
        fields
            .map(|field| format!("{} {}", field.name(), field.data_type()))
            .collect()
    };
    let (got, known) = (columns(schema), columns(known));
    if got == known {
        return Ok(());
    }
    let differs = got.iter().zip(&known).find(|(got, known)| got != known);
    let (got, known) = match differs {
        Some((got, known)) => (got.clone(), known.clone()),
        None => (
            print::counted(got.len() as u64, "column"),
            print::counted(known.len() as u64, "column"),
        ),
    };
    Err(Error::data(format!(
        "has other columns than the file that was made before: got=`{got}` expected=`{known}` file=`{}`; declare the \
         column's type (types = [\"COLUMN = TYPE\"]), or write into another directory",
        shown(other)
    ))
    .into())
}
