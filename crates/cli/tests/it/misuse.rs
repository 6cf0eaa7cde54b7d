//! Wrong use: one clear message, the right exit code, nothing left behind.

use std::process::Command;

use darner_store::{Store, StoreOptions};

use crate::place::{Place, Run};

fn place() -> Place {
    let place = Place::new();
    place.write("airports.csv", "faa,name\nJFK,Kennedy\nLGA,Guardia\n");
    place.write("flights.csv", "flight,dest\n1,JFK\n2,BQN\n");
    place.ok(&["load", "airports", "airports.csv", "--key", "faa"]);
    place
}

/// Runs, and checks the exit code, the words of the one message, and that nothing came or went.
#[track_caller]
fn check(place: &Place, args: &[&str], code: i32, words: &[&str]) {
    let before = place.names();
    let run = place.run(args);
    assert_eq!(run.code, Some(code), "darner {args:?}\n{}", run.stderr);
    for word in words {
        assert!(
            run.stderr.contains(word),
            "darner {args:?}: {} lacks {word}",
            run.stderr
        );
    }
    assert_eq!(run.stdout, "", "darner {args:?}");
    assert!(
        !run.stderr.contains("panicked"),
        "darner {args:?}: {}",
        run.stderr
    );
    assert_eq!(
        place.names(),
        before,
        "darner {args:?} left something behind"
    );
    assert!(!place.path("out.parquet").exists());
    assert_eq!(
        place
            .ok(&["scan", "airports", "--format", "csv"])
            .stdout
            .lines()
            .count(),
        3
    );
}

#[test]
fn wrong_names_are_errors_that_say_what_there_is() {
    let place = place();
    let enrich =
        |join: &'static str| ["enrich", "flights.csv", "--with", join, "-o", "out.parquet"];
    check(
        &place,
        &[
            "enrich",
            "none.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "out.parquet",
        ],
        3,
        &["none.csv"],
    );
    check(
        &place,
        &enrich("airprts on dest = faa"),
        3,
        &["airprts", "airports"],
    );
    check(
        &place,
        &enrich("airports on destt = faa"),
        2,
        &["destt", "dest"],
    );
    check(
        &place,
        &enrich("airports on dest = fa"),
        2,
        &["`fa`", "faa"],
    );
    check(
        &place,
        &enrich("airports on dest = faa select nam"),
        2,
        &["nam", "name"],
    );
    check(&place, &enrich("airports onn dest"), 2, &["onn"]);
    check(
        &place,
        &enrich("airports on flight = faa"),
        2,
        &["flight", "Int64", "faa", "Utf8"],
    );
    check(
        &place,
        &["load", "airports", "airports.csv", "--key", "fa"],
        2,
        &["fa", "faa"],
    );
    check(&place, &["load", "new", "airports.csv"], 3, &["new", "key"]);
    check(
        &place,
        &["get", "airport", "JFK"],
        3,
        &["airport", "airports"],
    );
    check(
        &place,
        &["scan", "airports", "--select", "nme"],
        2,
        &["nme", "name"],
    );
    check(
        &place,
        &["load", "airports", "flights.csv"],
        2,
        &["flights.csv", "`flight`", "--mode replace"],
    );
    check(
        &place,
        &[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "flights.csv",
        ],
        2,
        &["flights.csv", "input"],
    );
    check(&place, &["fly"], 2, &["fly"]);
    check(&place, &["--store", "none", "tables"], 3, &["none"]);
    check(
        &place,
        &[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "nowhere/out.parquet",
        ],
        3,
        &["nowhere"],
    );
    check(
        &place,
        &[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "out.xyz",
        ],
        2,
        &["out.xyz", "parquet"],
    );
}

#[test]
fn wrong_files_are_errors_that_name_them() {
    let place = place();
    place.write(
        "text.parquet",
        "this is no parquet file, however long it may be",
    );
    place.write("ragged.csv", "flight,dest\n1,JFK\n2\n");
    place.write("empty.csv", "");
    place.write("twice.csv", "faa,name\nBQN,a\nBQN,b\n");
    place.write("null.csv", "faa,name\nBQN,a\n,b\n");
    place.ok(&["sql", "SELECT * FROM 'flights.csv'", "-o", "whole.arrow"]);
    let whole = std::fs::read(place.path("whole.arrow")).unwrap();
    std::fs::write(place.path("cut.arrow"), &whole[..whole.len() * 2 / 3]).unwrap();
    for (file, words) in [
        ("text.parquet", &["text.parquet"][..]),
        ("cut.arrow", &["cut.arrow"]),
        ("ragged.csv", &["ragged.csv", "3"]),
        ("empty.csv", &["empty.csv"]),
    ] {
        check(
            &place,
            &[
                "enrich",
                file,
                "--with",
                "airports on dest=faa",
                "-o",
                "out.parquet",
            ],
            1,
            words,
        );
        check(&place, &["load", "airports", file], 1, words);
    }
    check(
        &place,
        &["load", "airports", "twice.csv"],
        1,
        &[
            "1 duplicate",
            "BQN",
            "rows 1 and 2",
            "twice.csv",
            "--on-duplicate",
        ],
    );
    check(
        &place,
        &["load", "airports", "null.csv"],
        1,
        &["null", "faa", "row 2", "null.csv"],
    );
}

#[test]
fn outputs_that_would_destroy_something_are_refused() {
    let place = place();
    place.write("more.csv", "flight,dest\n3,LGA\n");
    let join = ["enrich", "flights.csv", "--with", "airports on dest=faa"];
    for (outputs, word) in [
        (&["-o", "flights.csv"][..], "input"),
        (&["-o", "./flights.csv"], "input"),
        (&["-o", "more.csv", "--report", "flights.csv"], "input"),
        (&["-o", "new.csv", "--unmatched", "new.csv"], "twice"),
        (&["-o", "new.csv", "--report", "./new.csv"], "twice"),
        (
            &["-o", "darner-store/CURRENT", "--format", "csv"],
            "inside the store",
        ),
    ] {
        check(&place, &[&join[..], outputs].concat(), 2, &[word]);
    }
    check(
        &place,
        &[
            "scan",
            "airports",
            "-o",
            "darner-store/LOCK",
            "--format",
            "csv",
        ],
        2,
        &["store"],
    );
    check(
        &place,
        &["load", "airports", "airports.csv", "airports.csv"],
        2,
        &["twice"],
    );
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let place = place();
    let store = Store::open(place.path("darner-store"), StoreOptions::default()).unwrap();
    let pid = std::process::id().to_string();
    check(
        &place,
        &["load", "airports", "airports.csv"],
        1,
        &["pid", &pid],
    );
    drop(store);
    place.ok(&["load", "airports", "airports.csv"]);
}

#[test]
fn a_file_size_limit_is_a_clear_error_and_harms_nothing() {
    let place = place();
    let rows: String = (0..60_000)
        .map(|i| format!("K{i},name of airport {i}\n"))
        .collect();
    place.write("many.csv", &format!("faa,name\n{rows}"));
    place.write("many_flights.csv", &format!("dest,flight\n{rows}"));
    let before = place.names();
    let program = env!("CARGO_BIN_EXE_darner");
    for command in [
        "load airports many.csv",
        "enrich many_flights.csv --with 'airports on dest=faa' -o out.csv",
        "scan airports -o out.csv --format csv",
    ] {
        // In units of 512 bytes or 1 KiB; either way less than the output, and than a segment of the log.
        let script = format!("ulimit -f 0; exec '{program}' {command}");
        let run = Run::of(
            Command::new("sh")
                .args(["-c", &script])
                .current_dir(place.dir())
                .output()
                .unwrap(),
        );
        assert_eq!(run.code, Some(1), "{command}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), 1, "{command}: {}", run.stderr);
        assert!(run.stderr.contains("large"), "{command}: {}", run.stderr);
        assert_eq!(place.names(), before, "{command}");
    }
    place.ok(&["load", "airports", "many.csv"]);
    assert!(place.ok(&["info", "airports"]).stdout.contains("60,002"));
}

#[test]
fn an_unwritable_output_is_an_error_before_the_work() {
    // Root may write anywhere, so the target is one that nobody can write: a directory, and below a file.
    let place = place();
    std::fs::create_dir(place.path("dir.csv")).unwrap();
    check(
        &place,
        &[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "dir.csv",
        ],
        2,
        &["dir.csv"],
    );
    check(
        &place,
        &[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=faa",
            "-o",
            "flights.csv/out.csv",
        ],
        2,
        &["flights.csv"],
    );
}
