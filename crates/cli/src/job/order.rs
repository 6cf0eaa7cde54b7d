//! In which order the steps of a job are done, and which of them.
//!
//! An enrichment comes after the dimensions that it joins; whoever reads a file comes after the enrichment that writes
//! it. Steps that do not wait for each other are done as they stand in the file: dimensions, enrichments, views,
//! summaries. A check is done as soon as what it reads is there, before anything else makes use of that.

use std::{
    ffi::OsStr,
    fmt,
    path::{Component, Path, PathBuf},
};

use darner_engine::{Error, Result};
use darner_sql::relations_of;
use glob::Pattern;

use super::{
    file::Job,
    step::{DimensionStep, EnrichStep, OneOrMore, QuestionStep, ViewStep},
};
use crate::names::hint;

/// One step of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'j> {
    Dimension(&'j str, &'j DimensionStep),
    Enrich(&'j str, &'j EnrichStep),
    View(&'j str, &'j ViewStep),
    Check(&'j str, &'j QuestionStep),
    Summary(&'j str, &'j QuestionStep),
}

impl<'j> Step<'j> {
    pub(crate) fn name(&self) -> &'j str {
        match self {
            Self::Dimension(name, _)
            | Self::Enrich(name, _)
            | Self::View(name, _)
            | Self::Check(name, _)
            | Self::Summary(name, _) => name,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Dimension(..) => "dimension",
            Self::Enrich(..) => "enrich",
            Self::View(..) => "view",
            Self::Check(..) => "check",
            Self::Summary(..) => "summary",
        }
    }

    /// The files that it reads.
    fn from(&self) -> Option<&'j OneOrMore> {
        match self {
            Self::Dimension(_, step) => Some(&step.from),
            Self::Enrich(_, step) => Some(&step.from),
            Self::View(..) | Self::Check(..) | Self::Summary(..) => None,
        }
    }
}

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

/// All steps, in the order in which they are done.
///
/// # Errors
/// `Invalid` if steps wait for each other in a circle, which is named, and for a join that cannot be read.
pub(crate) fn in_order(job: &Job) -> Result<Vec<Step<'_>>> {
    let checks = job.check.0.iter();
    let dimensions = job.dimension.0.iter();
    let enrichments = job.enrich.0.iter();
    let views = job.view.0.iter();
    let summaries = job.summary.0.iter();
    let steps: Vec<Step<'_>> = checks
        .map(|(name, step)| Step::Check(name, step))
        .chain(dimensions.map(|(name, step)| Step::Dimension(name, step)))
        .chain(enrichments.map(|(name, step)| Step::Enrich(name, step)))
        .chain(views.map(|(name, step)| Step::View(name, step)))
        .chain(summaries.map(|(name, step)| Step::Summary(name, step)))
        .collect();
    let mut waits_for = Vec::with_capacity(steps.len());
    for step in &steps {
        let mut others = Vec::new();
        for (idx, other) in steps.iter().enumerate() {
            if waits(job, step, other)? {
                others.push(idx);
            }
        }
        waits_for.push(others);
    }
    let mut is_done = vec![false; steps.len()];
    let mut ordered = Vec::with_capacity(steps.len());
    while ordered.len() < steps.len() {
        let is_ready =
            |idx: &usize| !is_done[*idx] && waits_for[*idx].iter().all(|&on| is_done[on]);
        let Some(next) = (0..steps.len()).find(is_ready) else {
            return Err(Error::invalid(format!(
                "{}: steps wait for each other in a circle: {}",
                job.file.display(),
                circle(&steps, &waits_for, &is_done)
            )));
        };
        is_done[next] = true;
        ordered.push(steps[next]);
    }
    Ok(ordered)
}

/// Those steps that were asked for, each as `NAME` or `KIND.NAME`; all if none was.
pub(crate) fn only<'j>(steps: Vec<Step<'j>>, names: &[String]) -> Result<Vec<Step<'j>>> {
    let is_meant = |step: &Step<'_>, name: &str| {
        step.name() == name
            || name
                .split_once('.')
                .is_some_and(|(kind, name)| step.kind() == kind && step.name() == name)
    };
    for name in names {
        if !steps.iter().any(|step| is_meant(step, name)) {
            let known: Vec<&str> = steps.iter().map(Step::name).collect();
            let whole: Vec<String> = steps
                .iter()
                .map(|step| format!("{}.{}", step.kind(), step.name()))
                .collect();
            let all = known.iter().copied();
            return Err(Error::invalid(format!(
                "--only {name}: the job has no such step: steps=`{}`{}",
                known.join(", "),
                hint(name, all.chain(whole.iter().map(String::as_str)))
            )));
        }
    }
    let is_asked =
        |step: &Step<'_>| names.is_empty() || names.iter().any(|name| is_meant(step, name));
    Ok(steps.into_iter().filter(is_asked).collect())
}

/// Whether a step must come after another.
fn waits(job: &Job, step: &Step<'_>, other: &Step<'_>) -> Result<bool> {
    match (step, other) {
        (Step::Enrich(name, step), Step::Dimension(table, _)) => {
            for join in step
                .joins()
                .map_err(|error| error.context(format!("enrich {name}")))?
            {
                if join.table == *table {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Step::Enrich(name, step), Step::View(view, _)) => {
            let joins = step
                .joins()
                .map_err(|error| error.context(format!("enrich {name}")))?;
            Ok(joins.iter().any(|join| join.table == *view))
        }
        (
            Step::View(name, ViewStep { query, .. })
            | Step::Check(name, QuestionStep { query, .. }),
            _,
        ) => {
            let names = relations_of(query).map_err(|error| error.context(step))?;
            Ok(match other {
                Step::Dimension(other, _) | Step::View(other, _) => {
                    // As in dim_get('airports', dest, 'name').
                    let is_named = || query.contains(&format!("('{other}'"));
                    // A check may have the name of what it checks.
                    let is_itself = matches!(step, Step::View(..)) && name == other;
                    !is_itself && (names.iter().any(|name| name == other) || is_named())
                }
                Step::Enrich(other, writer) => names.iter().any(|name| {
                    let reads_it =
                        |output: &PathBuf| reads(&job.path(Path::new(name)), &job.path(output));
                    name == other || writer.outputs().any(reads_it)
                }),
                Step::Check(..) | Step::Summary(..) => false,
            })
        }
        (Step::Summary(..), other) => Ok(!matches!(other, Step::Summary(..))),
        (_, Step::Enrich(_, writer)) => {
            let Some(from) = step.from() else {
                return Ok(false);
            };
            let patterns = from.to_vec();
            Ok(writer.outputs().any(|output| {
                let output = job.path(output);
                patterns
                    .iter()
                    .any(|pattern| reads(&job.path(Path::new(pattern)), &output))
            }))
        }
        _ => Ok(false),
    }
}

/// Whether a pattern stands for an output, or for a file that may come to lie in it if it is a directory.
pub(crate) fn reads(pattern: &Path, output: &Path) -> bool {
    let (pattern, output) = (normal(pattern), normal(output));
    if pattern == output || output.parent() == Some(&pattern) {
        return true;
    }
    let is_plain = |part: &OsStr| !part.to_string_lossy().contains(['*', '?', '[']);
    let fixed: PathBuf = pattern.iter().take_while(|part| is_plain(part)).collect();
    if fixed.starts_with(&output) {
        return true;
    }
    pattern
        .to_str()
        .and_then(|pattern| Pattern::new(pattern).ok())
        .is_some_and(|pattern| pattern.matches_path(&output))
}

/// A path from the root, without `.` and `..`, whether it exists or not.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

/// A circle among the steps that are left: each waits for the one after it.
fn circle(steps: &[Step<'_>], waits_for: &[Vec<usize>], is_done: &[bool]) -> String {
    let next = |idx: usize| waits_for[idx].iter().copied().find(|&on| !is_done[on]);
    let mut path: Vec<usize> = Vec::new();
    let mut at = is_done.iter().position(|is_done| !is_done);
    while let Some(idx) = at {
        if let Some(start) = path.iter().position(|&seen| seen == idx) {
            path.drain(..start);
            path.push(idx);
            break;
        }
        path.push(idx);
        at = next(idx);
    }
    let names: Vec<String> = path.iter().map(|&idx| steps[idx].to_string()).collect();
    names.join(" needs ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.toml");
        std::fs::write(&path, format!("store = 's'\n{text}")).unwrap();
        let job = Job::read(&path, &[])?;
        let names: Vec<_> = in_order(&job)?.iter().map(Step::name).collect();
        Ok(names.join(" "))
    }

    fn dimension(name: &str, from: &str) -> String {
        format!("[dimension.{name}]\nfrom = '{from}'\nkey = 'k'\n")
    }

    fn enrich(name: &str, from: &str, table: &str, to: &str) -> String {
        format!("[enrich.{name}]\nfrom = '{from}'\njoin = '{table} on k'\nto = '{to}'\n")
    }

    #[test]
    fn readers_come_after_writers_and_all_else_keeps_its_place() {
        let job = [
            dimension("late", "out/./clean.csv"),
            dimension("d", "d.csv"),
            enrich("third", "x/../out/*.csv", "late", "z.csv"),
            enrich("clean", "raw.csv", "d", "out/clean.csv"),
        ];
        assert_eq!(order(&job.concat()).unwrap(), "d clean late third");
        let job = [
            enrich("b", "mid/", "d", "end.csv"),
            enrich("a", "a.csv", "d", "mid/a.csv"),
            dimension("d", "d.csv"),
        ];
        assert_eq!(order(&job.concat()).unwrap(), "d a b");
        let job = [
            dimension("a", "a.csv"),
            dimension("b", "b.csv"),
            enrich("e", "f.csv", "a", "out/e.csv"),
            "[check.of_output]\nquery = \"SELECT * FROM 'out/*.csv'\"\n".to_owned(),
            "[check.of_file]\nquery = \"SELECT * FROM 'a.csv'\"\n".to_owned(),
            "[check.a]\nquery = \"SELECT dim_get('a', 1, 'x') IS NULL\"\n".to_owned(),
            "[check.of_both]\nquery = 'SELECT * FROM a JOIN b USING (k)'\n".to_owned(),
        ];
        assert_eq!(
            order(&job.concat()).unwrap(),
            "of_file a a b of_both e of_output"
        );
        let job = [
            enrich("b", "mid/sub/*.csv", "d", "end.csv"),
            enrich("a", "a.csv", "d", "mid/"),
        ];
        assert_eq!(order(&job.concat()).unwrap(), "a b");
    }

    #[test]
    fn a_circle_is_named() {
        let job = [
            dimension("d", "out/e.csv"),
            dimension("other", "other.csv"),
            enrich("e", "f.csv", "d", "out/e.csv"),
        ];
        let text = order(&job.concat()).unwrap_err().to_string();
        assert!(
            text.ends_with("dimension d needs enrich e needs dimension d"),
            "{text}"
        );
        let text = order(&enrich("e", "out/*", "d", "out/x.csv"))
            .unwrap_err()
            .to_string();
        assert!(text.ends_with("enrich e needs enrich e"), "{text}");
    }
}
