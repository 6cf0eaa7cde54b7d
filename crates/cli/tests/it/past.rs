//! Older versions: history, reading as of, changes, retention, compaction.

use darner_store::{Store, StoreOptions};

use crate::place::Place;

/// Versions 1 (two rows), 2 (says what is kept), 3 (JFK changed, SJU new), 4 (LGA deleted).
fn place() -> Place {
    let place = Place::new();
    place.write("a.csv", "faa,name,alt\nJFK,Kennedy,13\nLGA,Guardia,22\n");
    place.write("b.csv", "faa,name,alt\nJFK,Kennedy Intl,13\nSJU,Juan,5\n");
    place.ok(&["load", "airports", "a.csv", "--key", "faa"]);
    place.ok(&["retention", "airports", "--versions", "10"]);
    place.ok(&["load", "airports", "b.csv"]);
    place.ok(&["delete", "airports", "LGA"]);
    place
}

/// The lines of `history --json` without their times, and the times.
fn history(place: &Place) -> (Vec<String>, Vec<String>) {
    let run = place.ok(&["history", "airports", "--json"]);
    let split = |line: &str| {
        let (version, rest) = line.split_once(r#","time":""#).unwrap();
        let (time, rest) = rest.split_once('"').unwrap();
        (format!("{version}{rest}"), time.to_owned())
    };
    run.stdout.lines().map(split).unzip()
}

fn scan(place: &Place, as_of: &str) -> String {
    place
        .ok(&["scan", "airports", "--as-of", as_of, "--format", "csv"])
        .stdout
}

#[test]
fn history_says_what_each_commit_did() {
    let place = place();
    let (commits, _) = history(&place);
    assert_eq!(
        commits,
        [
            r#"{"version":1,"what":"create","added":2,"removed":0,"live":2,"readable":true}"#,
            r#"{"version":3,"what":"write","added":2,"removed":1,"live":3,"readable":true}"#,
            r#"{"version":4,"what":"write","added":0,"removed":1,"live":2,"readable":true}"#,
        ]
    );
    let run = place.ok(&["history", "airports"]);
    let words: Vec<&str> = run.stdout.lines().nth(4).unwrap().split('|').collect();
    assert_eq!(words[1].trim(), "3");
    assert!(words[2].trim().ends_with('Z'), "{}", run.stdout);
    let words: Vec<&str> = words[3..8].iter().map(|word| word.trim()).collect();
    assert_eq!(words, ["write", "2", "1", "3", "yes"]);
    place.fails(&["history", "airprts"], 3, &["airprts", "airports"]);
}

#[test]
fn a_table_is_read_as_of_a_version_or_a_time() {
    let place = place();
    let (first, second) = (
        "faa,name,alt\nJFK,Kennedy,13\nLGA,Guardia,22\n",
        "faa,name,alt\nLGA,Guardia,22\nJFK,Kennedy Intl,13\nSJU,Juan,5\n",
    );
    assert_eq!(scan(&place, "1"), first);
    // A commit that did not change the table.
    assert_eq!(scan(&place, "2"), first);
    assert_eq!(scan(&place, "3"), second);
    let (_, times) = history(&place);
    assert_eq!(scan(&place, &times[0]), first);
    assert_eq!(scan(&place, &times[1]), second);
    let run = place.ok(&["get", "airports", "LGA", "--as-of", "3", "--format", "csv"]);
    assert_eq!(run.stdout, "faa,name,alt\nLGA,Guardia,22\n");
    place.fails(&["get", "airports", "SJU", "--as-of", "1"], 3, &["SJU"]);
    place.write("facts.csv", "n,faa\n1,JFK\n2,SJU\n");
    let enrich = [
        "enrich",
        "facts.csv",
        "--with",
        "airports on faa select name",
        "-o",
        "-",
        "--format",
        "csv",
        "--as-of",
    ];
    let run = place.ok(&[&enrich[..], &["1"]].concat());
    assert_eq!(run.stdout, "n,faa,name\n1,JFK,Kennedy\n2,SJU,\n");
    let run = place.ok(&[&enrich[..], &[&times[1]]].concat());
    assert_eq!(run.stdout, "n,faa,name\n1,JFK,Kennedy Intl\n2,SJU,Juan\n");
}

#[test]
fn versions_and_times_that_cannot_be_read_are_errors_that_say_why() {
    let place = place();
    for command in [
        &["scan", "airports"][..],
        &["get", "airports", "JFK"],
        &[
            "enrich",
            "a.csv",
            "--with",
            "airports on faa",
            "-o",
            "out.csv",
        ],
        &["changes", "airports", "--since", "1"],
    ] {
        let check = |as_of: &str, code, words: &[&str]| {
            place.fails(&[command, &["--as-of", as_of]].concat(), code, words);
            assert!(!place.path("out.csv").exists());
        };
        check("99", 2, &["still to come", "`99`", "`4`"]);
        check("2999-01-01", 2, &["still to come", "2999-01-01T00:00:00Z"]);
        check("0", 3, &["made later", "airports"]);
        check(
            "2013-01-01 13:00",
            3,
            &["made later", "2013-01-01T13:00:00Z"],
        );
        check("yesterday", 2, &["yesterday", "2026-11-20 13:00"]);
        check("2026-02-30", 2, &["2026-02-30"]);
        check("99999999999999999999", 2, &["versions"]);
    }
    place.fails(
        &["scan", "airprts", "--as-of", "1"],
        3,
        &["airprts", "airports"],
    );
    place.ok(&["retention", "airports", "--versions", "2"]);
    place.ok(&["compact", "airports"]);
    place.fails(
        &["scan", "airports", "--as-of", "1"],
        3,
        &["not kept", "next_kept=`3`", "darner retention"],
    );
    place.fails(&["changes", "airports", "--since", "1"], 3, &["not kept"]);
    let (commits, _) = history(&place);
    assert!(commits[0].ends_with(r#""readable":false}"#), "{commits:?}");
    assert!(commits[1].ends_with(r#""readable":true}"#), "{commits:?}");
    assert_eq!(scan(&place, "3").lines().count(), 4);
}

#[test]
fn changes_are_the_new_rows_and_the_deleted_keys() {
    let place = place();
    let changes = |args: &[&str]| {
        let run =
            place.ok(&[&["changes", "airports", "--format", "csv", "--since"], args].concat());
        (run.stdout, run.stderr)
    };
    let (rows, note) = changes(&["1"]);
    assert_eq!(
        rows,
        "_change,faa,name,alt\ndelete,LGA,,\nupsert,JFK,Kennedy Intl,13\nupsert,SJU,Juan,5\n"
    );
    assert_eq!(note, "airports: changes since version 1, up to version 4\n");
    let (_, times) = history(&place);
    assert_eq!(changes(&[&times[0]]).0, rows);
    assert_eq!(
        changes(&["1", "--as-of", "3"]).0,
        "_change,faa,name,alt\nupsert,JFK,Kennedy Intl,13\nupsert,SJU,Juan,5\n"
    );
    assert_eq!(changes(&["3"]).0, "_change,faa,name,alt\ndelete,LGA,,\n");
    assert_eq!(changes(&["4"]).0, "_change,faa,name,alt\n");
    assert_eq!(
        changes(&["0"]).0,
        "_change,faa,name,alt\nupsert,JFK,Kennedy Intl,13\nupsert,SJU,Juan,5\n"
    );
    let run = place.ok(&["changes", "airports", "--since", "3", "--json", "--quiet"]);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        (
            "{\"_change\":\"delete\",\"faa\":\"LGA\",\"name\":null,\"alt\":null}\n",
            ""
        )
    );
    place.ok(&[
        "changes",
        "airports",
        "--since",
        "1",
        "-o",
        "changes.parquet",
    ]);
    let run = place.ok(&[
        "sql",
        "SELECT _change, count(*) AS n FROM 'changes.parquet' GROUP BY 1 ORDER BY 1",
        "--format",
        "csv",
    ]);
    assert_eq!(run.stdout, "_change,n\ndelete,1\nupsert,2\n");
    place.fails(
        &["changes", "airports", "--since", "5"],
        2,
        &["still to come"],
    );
    place.fails(
        &["changes", "airports", "--since", "4", "--as-of", "3"],
        2,
        &["changes begin later"],
    );
    place.fails(&["changes", "airports"], 2, &["--since"]);
}

#[test]
fn changes_of_a_table_that_was_replaced_tell_which_keys_went() {
    let place = place();
    place.ok(&["load", "airports", "a.csv", "--mode", "replace"]);
    let changes = ["changes", "airports", "--format", "csv", "--since"];
    let run = place.ok(&[&changes[..], &["3"]].concat());
    assert_eq!(
        run.stdout,
        "_change,faa,name,alt\ndelete,SJU,,\nupsert,JFK,Kennedy,13\nupsert,LGA,Guardia,22\n"
    );
    place.write("c.csv", "id,_change\n1,x\n");
    place.ok(&[
        "load", "airports", "c.csv", "--mode", "replace", "--key", "id",
    ]);
    place.fails(
        &[&changes[..], &["3"]].concat(),
        2,
        &["another key", "`faa`", "`id`", "since version 0"],
    );
    // The name of the column that says what was done is taken.
    let run = place.ok(&[&changes[..], &["0"]].concat());
    assert_eq!(run.stdout, "__change,id,_change\nupsert,1,x\n");
}

#[test]
fn retention_is_shown_and_set() {
    let place = place();
    let run = place.ok(&["retention", "airports"]);
    assert_eq!(
        run.stdout,
        "airports: keeps the newest 10 versions; the oldest that can be read is version 1\n"
    );
    place.ok(&["retention", "airports", "--age", "1d12h"]);
    let run = place.ok(&["retention", "airports", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"age_ms\":129600000,\"oldest_version\":1,\"table\":\"airports\",\"versions\":10}\n"
    );
    let run = place.ok(&["retention", "airports", "--versions", "1", "--age", "0"]);
    assert_eq!(
        run.stdout,
        "airports: keeps the newest version; the oldest that can be read is version 1\n"
    );
    let set = |args: &[&str], words: &[&str]| {
        place.fails(&[&["retention", "airports"], args].concat(), 2, words);
    };
    set(&["--versions", "0"], &["--versions"]);
    set(&["--age", "7"], &["'7'", "7d, 12h"]);
    set(&["--age", "soon"], &["soon"]);
    set(&["--age=-7d"], &["-7d"]);
    place.fails(&["retention", "airprts"], 3, &["airprts", "airports"]);
    place.fails(
        &["retention", "airprts", "--age", "7d"],
        3,
        &["airprts", "airports"],
    );
}

#[test]
fn compaction_says_what_it_gave_back() {
    let place = place();
    let rows: String = (0..20_000)
        .map(|i| format!("K{i},name {i},{i}\n"))
        .collect();
    place.write("many.csv", &format!("faa,name,alt\n{rows}"));
    place.ok(&["retention", "airports", "--versions", "1"]);
    for _ in 0..5 {
        place.ok(&["load", "airports", "many.csv"]);
    }
    let run = place.ok(&["compact", "airports", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let (before, after) = (&report["bytes_before"], &report["bytes_after"]);
    assert!(
        before.as_u64().unwrap() > 3 * after.as_u64().unwrap(),
        "{}",
        run.stdout
    );
    let run = place.ok(&["info", "airports"]);
    for words in [
        "0 replaced or deleted since",
        "keeps the newest version",
        "past     1 of",
    ] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    let run = place.ok(&["compact"]);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("compacted"), "{}", run.stderr);
    place.fails(&["compact", "airprts"], 3, &["airprts", "airports"]);
    place.fails(&["--store", "none", "compact"], 3, &["none", "--store"]);
    assert!(!place.path("none").exists());
}

#[test]
fn what_only_reads_goes_on_beside_a_writer() {
    let place = place();
    let store = Store::open(place.path("darner-store"), StoreOptions::default()).unwrap();
    for args in [
        &["history", "airports"][..],
        &["scan", "airports", "--as-of", "1"],
        &["changes", "airports", "--since", "1"],
        &["retention", "airports"],
        &["info"],
        &["info", "airports"],
        &["state", "list"],
        &["verify"],
        &["backup", "copy"],
    ] {
        place.ok(args);
    }
    for args in [
        &["retention", "airports", "--age", "7d"][..],
        &["compact"],
        &["state", "put", "s", "k", "v"],
    ] {
        place.fails(args, 1, &["pid"]);
    }
    drop(store);
}
