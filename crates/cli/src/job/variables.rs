//! What `--set` and the environment put into a job file.
//!
//! `${NAME}` in a string stands for a variable, `${NAME:-text}` for one that may be missing or empty, `$${` for `${`
//! itself. `--set NAME=VALUE` gives a variable, before the environment does. `--set store=DIR` and
//! `--set enrich.flights.to=FILE` set a field: a key that is a field of a job, or that has dots.

use std::{borrow::Cow, collections::HashSet, fmt::Display, path::Path};

use darner_engine::{Error, Result};
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use crate::names::hint;

/// A key and a value of `--set`.
pub(crate) type Setting = (String, String);

/// Fields of a job that have no table around them.
const FIELDS: [&str; 1] = ["store"];

/// Reads a job from its text, with settings and variables put in.
///
/// # Errors
/// `Invalid`, with the file's name and the line: no TOML, a variable that is not set, a field that is not known; for a
/// setting that sets nothing, its name.
pub(crate) fn read<T: for<'de> Deserialize<'de>>(
    path: &Path,
    text: &str,
    settings: &[Setting],
) -> Result<T> {
    let mut job = DeTable::parse(text).map_err(|error| from_toml(path, &error))?;
    let mut variables = Variables {
        path,
        text,
        settings,
        used: HashSet::new(),
    };
    for (idx, setting) in settings.iter().enumerate() {
        if is_field(&setting.0) {
            // A place after the text's end tells later which setting a value came from.
            let place = text.len() + 1 + idx;
            set_field(job.get_mut(), setting, place)?;
        }
    }
    variables.fill_table(job.get_mut())?;
    if let Some((name, _)) = settings
        .iter()
        .find(|(name, _)| !is_field(name) && !variables.used.contains(name.as_str()))
    {
        return Err(Error::invalid(format!(
            "--set {name}: the job has no variable ${{{name}}}, and no field of a step was named; a field has its whole \
             name, such as enrich.flights.to{}",
            hint(name, FIELDS.into_iter())
        )));
    }
    T::deserialize(Deserializer::from(job)).map_err(|mut error| {
        let set = error.span().map(|span| span.start);
        let set = set.and_then(|start| settings.get(start.checked_sub(text.len() + 1)?));
        if let Some((name, value)) = set {
            let what = error.message();
            Error::invalid(format!(
                "--set {name}={value}: {what}{}",
                unknown_name(what)
            ))
        } else {
            error.set_input(Some(text));
            from_toml(path, &error)
        }
    })
}

/// What the TOML reader says, with the nearest name for one that it does not know.
fn from_toml(path: &Path, error: &toml::de::Error) -> Error {
    let hint = unknown_name(error.message());
    let what = error.to_string();
    Error::invalid(format!("{}: {}{hint}", path.display(), what.trim_end()))
}

/// The known name that is nearest to the unknown one of an error message, if one is near.
fn unknown_name(message: &str) -> String {
    let quoted = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"));
    let Some(quoted) = quoted else {
        return String::new();
    };
    let mut names = quoted.split('`').step_by(2);
    let unknown = names.next().unwrap_or_default();
    match hint(unknown, names) {
        hint if hint.is_empty() => hint,
        hint => format!("\n{}", hint.trim_start_matches("; ")),
    }
}

fn is_field(name: &str) -> bool {
    FIELDS.contains(&name) || name.contains('.')
}

/// Sets a field of a step that is there.
fn set_field<'a>(job: &mut DeTable<'a>, (name, value): &'a Setting, place: usize) -> Result<()> {
    let mut table = job;
    let mut parts = name.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            // What was a text stays one, or becomes several: `--set store=2026` is a directory.
            let is_text = table.get(part).is_some_and(|old| old.get_ref().is_str());
            let parsed = DeValue::parse(value).map(Spanned::into_inner);
            let new = match parsed {
                Ok(new) if !is_text || new.is_str() || new.is_array() => new,
                _ => DeValue::String(Cow::Owned(value.clone())),
            };
            let key = Spanned::new(place..place, Cow::Owned(part.to_owned()));
            table.insert(key, Spanned::new(place..place, new));
            return Ok(());
        }
        let names: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
        let next = table.get_mut(part).map(Spanned::get_mut);
        table = match next {
            Some(DeValue::Table(next)) => next,
            _ => {
                return Err(Error::invalid(format!(
                    "--set {name}: the job has no `{part}` there{}",
                    hint(part, names.iter().map(String::as_str))
                )));
            }
        };
    }
    Ok(())
}

struct Variables<'a> {
    path: &'a Path,
    text: &'a str,
    settings: &'a [Setting],
    used: HashSet<String>,
}

impl Variables<'_> {
    fn fill_table(&mut self, table: &mut DeTable<'_>) -> Result<()> {
        let mut filled = Ok(());
        for (_, value) in table.iter_mut() {
            if filled.is_ok() {
                filled = self.fill(value);
            }
        }
        filled
    }

    fn fill(&mut self, value: &mut Spanned<DeValue<'_>>) -> Result<()> {
        let start = value.span().start;
        match value.get_mut() {
            DeValue::String(text) if text.contains("${") => {
                *text = Cow::Owned(self.expand(text, start)?);
                Ok(())
            }
            DeValue::Array(values) => values.iter_mut().try_for_each(|value| self.fill(value)),
            DeValue::Table(table) => self.fill_table(table),
            _ => Ok(()),
        }
    }

    /// A text with its variables put in.
    fn expand(&mut self, text: &str, start: usize) -> Result<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = &from[2..];
                continue;
            }
            out.push_str(before);
            let Some(end) = from.find('}') else {
                return Err(
                    self.error(start, format_args!("`${{` without its `}}`: text=`{text}`"))
                );
            };
            let (name, default) = match from[2..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&from[2..end], None),
            };
            let is_name =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                return Err(self.error(
                    start,
                    format_args!(
                        "a variable's name is letters, digits and underscores: got=`{name}`; write $${{ for the text ${{"
                    ),
                ));
            }
            out.push_str(&self.value(name, default, start)?);
            rest = &from[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&mut self, name: &str, default: Option<&str>, start: usize) -> Result<String> {
        self.used.insert(name.to_owned());
        let set = self.settings.iter().rev().find(|(set, _)| set == name);
        if let Some((_, value)) = set {
            return Ok(value.clone());
        }
        let value = match std::env::var(name) {
            Ok(value) => Some(value),
            Err(std::env::VarError::NotPresent) => None,
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(self.error(
                    start,
                    format_args!("the variable ${{{name}}} is no text in UTF-8"),
                ));
            }
        };
        match (value, default) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => Err(self.error(
                start,
                format_args!(
                    "the variable ${{{name}}} is not set; set it in the environment or with --set {name}=VALUE, or give \
                     a default: ${{{name}:-VALUE}}"
                ),
            )),
        }
    }

    /// An error at a place of the text, counted in bytes.
    fn error(&self, start: usize, what: impl Display) -> Error {
        let path = self.path.display();
        match self.text.get(..start) {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                Error::invalid(format!("{path}: line {line}: {what}"))
            }
            None => Error::invalid(format!("--set: {what}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, settings: &[(&str, &str)]) -> Result<toml::Table> {
        let settings: Vec<Setting> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read(Path::new("job.toml"), text, &settings)
    }

    #[test]
    fn variables_come_from_settings_defaults_and_the_environment() {
        let job = check(
            "store = '${DIR}/s'\nb = ['${DARNER_NONE:-x}', '$${DIR}']",
            &[("DIR", "a'\\b")],
        );
        let job = job.unwrap();
        assert_eq!(job["store"].as_str(), Some("a'\\b/s"));
        assert_eq!(job["b"][0].as_str(), Some("x"));
        assert_eq!(job["b"][1].as_str(), Some("${DIR}"));
        let job = check("store = '${PATH}'", &[]).unwrap();
        assert_eq!(job["store"].as_str(), std::env::var("PATH").ok().as_deref());
    }

    #[test]
    fn a_variable_that_is_not_set_is_an_error_with_its_line() {
        for (text, words) in [
            (
                "a = 1\n\nb = '${DARNER_NONE}'",
                ["line 3", "${DARNER_NONE}", "--set"],
            ),
            ("a = ['x',\n '${a b}']", ["line 2", "a b", "letters"]),
            ("a = '${DARNER_NONE'", ["line 1", "`}`", "DARNER_NONE"]),
        ] {
            let error = check(text, &[]).unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error} lacks {word}");
            }
        }
    }

    #[test]
    fn settings_set_fields_of_steps_and_nothing_else() {
        let text = "store = 's'\n[enrich.f]\nto = 'x'\nmax_miss_rate = 0.1\n";
        let settings = [
            ("store", "2026"),
            ("enrich.f.max_miss_rate", "0.5"),
            ("enrich.f.to", "y"),
            ("enrich.f.select", "['a', 'b']"),
        ];
        let job = check(text, &settings).unwrap();
        assert_eq!(job["store"].as_str(), Some("2026"));
        let step = &job["enrich"]["f"];
        assert_eq!(step["max_miss_rate"].as_float(), Some(0.5));
        assert_eq!(step["to"].as_str(), Some("y"));
        assert_eq!(step["select"][1].as_str(), Some("b"));
        for (setting, words) in [
            (("enrich.g.to", "y"), "no `g` there"),
            (("enrihc.f.to", "y"), "did you mean `enrich`?"),
            (("DAY", "1"), "no variable ${DAY}"),
            (("stroe", "1"), "did you mean `store`?"),
        ] {
            let error = check(text, &[setting]).unwrap_err().to_string();
            assert!(error.contains(words), "{error} lacks {words}");
        }
    }
}
