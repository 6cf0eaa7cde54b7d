//! Sessions at a terminal, kept in `tests/transcripts/*.md` as they are to look.
//!
//! In a block of `console` a line that begins with `$ ` is a command, lines that begin with `> ` go on with it, and what
//! follows is what it prints, with its exit code if that is not 0. All blocks of a file are one session, in a directory
//! of its own with a copy of the repository's data. What depends on the machine or the moment is `[..]`.
//!
//! `SNAPSHOTS=overwrite cargo test -p darner transcripts` writes them anew, to be read before they are committed.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use snapbox::{Assert, Data, assert::Action};

use crate::place::Place;

const DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/transcripts");
const README: &str = include_str!("../../../../README.md");

/// Commands of the README that are not for a test to run.
const LEFT_OUT: [&str; 4] = [
    "cargo test",
    "cargo bench",
    "venv/bin/python",
    // It needs a bucket; `remote.rs` has one.
    "darner enrich 's3://",
];

#[test]
fn sessions_look_as_they_are_to_look() {
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let place = Place::new();
        copy_data(&place);
        let shown = replay(&place, &text);
        let expected = Data::read_from(Path::new(&file), None);
        Assert::new()
            .normalize_paths(false)
            .action(match std::env::var("SNAPSHOTS").as_deref() {
                Ok("overwrite") => Action::Overwrite,
                _ => Action::Verify,
            })
            .eq(shown, expected);
    }
}

#[test]
fn each_command_of_the_readme_is_in_a_session() {
    let texts = files()
        .into_iter()
        .map(|file| fs::read_to_string(file).unwrap());
    let known: HashSet<String> = texts.flat_map(|text| commands(&text)).collect();
    let readme = commands(README);
    assert!(readme.len() > 15, "{readme:?}");
    for command in readme {
        if LEFT_OUT.iter().any(|words| command.starts_with(words)) {
            continue;
        }
        let command = command.replace("cargo run --release --", "darner");
        assert!(known.contains(&command), "no session has: {command}");
    }
}

/// The transcripts, by name.
fn files() -> Vec<String> {
    let entries = fs::read_dir(DIR).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<String> = paths
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The commands of a text, each on one line.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in text.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let mut open: Option<String> = None;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                commands.extend(open.replace(command.to_owned()));
            } else if let Some(open) = &mut open {
                // Without a sign, because the README leaves it out; what a command prints is no part of it.
                let more = line
                    .strip_prefix("> ")
                    .or_else(|| line.strip_prefix("    "));
                match more {
                    Some(more) => {
                        open.push(' ');
                        open.push_str(more);
                    }
                    None => commands.push(std::mem::take(open)),
                }
            }
        }
        commands.extend(open);
    }
    let one_line = |text: String| {
        let words = text.split_whitespace().filter(|word| *word != "\\");
        words.collect::<Vec<_>>().join(" ")
    };
    commands
        .into_iter()
        .map(one_line)
        .filter(|command| !command.is_empty())
        .collect()
}

/// Runs all commands of a transcript, and gives it as it turned out.
fn replay(place: &Place, text: &str) -> String {
    let mut shown = String::new();
    let mut lines = text.lines().peekable();
    let mut in_block = false;
    while let Some(line) = lines.next() {
        let Some(command) = line.strip_prefix("$ ").filter(|_| in_block) else {
            if line.starts_with("```") {
                in_block = line == "```console";
            }
            if !in_block || line.starts_with("```") {
                shown.push_str(line);
                shown.push('\n');
            }
            continue;
        };
        shown.push_str(line);
        shown.push('\n');
        let mut command = command.to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
            shown.push_str(more);
            shown.push('\n');
            command.push('\n');
            command.push_str(&more[2..]);
        }
        shown.push_str(&run(place, &command));
    }
    shown
}

/// What a shell shows of a command.
fn run(place: &Place, command: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_darner")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(place.dir())
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("HOME", place.dir())
        .env("LC_ALL", "C")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("DARNER_STORE")
        .env_remove("DARNER_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let dir = place.dir().canonicalize().unwrap();
    let text = text.replace(dir.to_str().unwrap(), "[..]");
    let lines: Vec<String> = text.lines().map(stable).collect();
    // The width of a column of moments is another from one to the next.
    let has_moment = lines
        .iter()
        .any(|line| line.starts_with('|') && line.contains("[..]"));
    let narrow = |line: &String| {
        if !has_moment || !line.starts_with(['|', '+']) {
            return line.clone();
        }
        if line.starts_with('+') {
            return line
                .split('+')
                .map(|cell| cell.get(..1).unwrap_or(""))
                .collect::<Vec<_>>()
                .join("+");
        }
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut text: String = lines.iter().map(|line| narrow(line) + "\n").collect();
    if !output.status.success() {
        let code = output.status.code().unwrap();
        text = format!("{text}[exit code {code}]\n");
    }
    text
}

/// A line without what depends on the machine or the moment: times, and numbers of seconds and of bytes on disk.
fn stable(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut all = line.split(' ').peekable();
    while let Some(word) = all.next() {
        let plain = word.trim_matches(|c: char| "(),:\"|".contains(c));
        let next = all
            .peek()
            .map(|next| next.trim_end_matches([',', ')', ';']));
        let is_measured = plain.parse::<f64>().is_ok()
            && matches!(next, Some("s" | "B" | "KiB" | "MiB" | "ms" | "µs"));
        let is_moment = plain.len() >= 19
            && plain.as_bytes()[4] == b'-'
            && plain.as_bytes()[10] == b'T'
            && plain.starts_with("20")
            && !plain.starts_with("2013");
        if is_measured || is_moment {
            words.push(word.replace(plain, "[..]"));
        } else {
            words.push(word.to_owned());
        }
    }
    // Which unit is taken depends on the number.
    let line = words.join(" ");
    line.replace("[..] KiB", "[..] B")
        .replace("[..] MiB", "[..] B")
}

fn copy_data(place: &Place) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    fs::create_dir(place.path("data")).unwrap();
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let name = path.file_name().unwrap();
            fs::copy(&path, place.path("data").join(name)).unwrap();
        }
    }
}
