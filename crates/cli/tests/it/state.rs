//! Keyed state on the command line.

use std::{io::Write, process::Stdio};

use crate::place::Place;

fn place() -> Place {
    let place = Place::new();
    for (key, value) in [
        ("user/2", "b"),
        ("user/1", "a\\b"),
        ("user/10", "größe"),
        ("other", "-5"),
    ] {
        place.ok(&["state", "put", "s", key, value]);
    }
    place
}

#[test]
fn values_are_put_and_got() {
    let place = place();
    let get = |args: &[&str]| place.ok(&[&["state", "get", "s"], args].concat()).stdout;
    assert_eq!(get(&["user/1"]), "a\\b\n");
    assert_eq!(get(&["user/1", "--raw"]), "a\\b");
    assert_eq!(
        get(&["user/1", "--json"]),
        "{\"key\":\"user/1\",\"value\":\"a\\\\b\"}\n"
    );
    assert_eq!(get(&["757365722f31", "--hex"]), "615c62\n");
    assert_eq!(get(&["other"]), "-5\n");
    let run = place.ok(&["state", "put", "s", "user/2", "", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"namespace\":\"s\",\"ttl_ms\":null,\"value_bytes\":0,\"version\":5}\n"
    );
    assert_eq!(get(&["user/2"]), "\n");
    let run = place.ok(&["state", "put", "s", "user/3", "c", "--ttl", "1h"]);
    assert_eq!(run.stderr, "s: user/3 put for 1h as version 6\n");
    assert_eq!(get(&["user/3"]), "c\n");
}

#[test]
fn bytes_that_are_no_text_come_out_without_loss() {
    let place = place();
    place.ok(&["state", "put", "b", "--hex", "ff0a", "001b5c"]);
    let run = place.ok(&["state", "get", "b", "--hex", "ff0a"]);
    assert_eq!(run.stdout, "001b5c\n");
    let run = place.ok(&["state", "scan", "b"]);
    assert_eq!(run.stdout, "\\xff\\n\t\\x00\\x1b\\\\\n");
    let run = place.ok(&["state", "scan", "b", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"key_hex\":\"ff0a\",\"value\":\"\\u0000\\u001b\\\\\"}\n"
    );
    // A whole file, through standard input.
    let mut put = place
        .command()
        .args(["state", "put", "b", "file", "-", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(b"\xfe\n\x00").unwrap();
    assert!(put.wait().unwrap().success());
    let run = place.ok(&["state", "get", "b", "file"]);
    assert_eq!(run.stdout, "\\xfe\\n\\x00\n");
    assert!(run.stderr.contains("--raw"), "{}", run.stderr);
    let output = place
        .command()
        .args(["state", "get", "b", "file", "--raw"])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"\xfe\n\x00");
    for key in ["f", "0g", "é"] {
        place.fails(
            &["state", "get", "b", "--hex", key],
            2,
            &["hexadecimal", key],
        );
    }
}

#[test]
fn entries_are_scanned_in_key_order() {
    let place = place();
    let keys = |args: &[&str]| -> Vec<String> {
        let run = place.ok(&[&["state", "scan", "s"], args].concat());
        let lines = run.stdout.lines();
        lines
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(keys(&[]), ["other", "user/1", "user/10", "user/2"]);
    assert_eq!(keys(&["--prefix", "user/1"]), ["user/1", "user/10"]);
    assert_eq!(keys(&["--prefix", "nobody"]), [""; 0]);
    assert_eq!(keys(&["--start", "user/10"]), ["user/10", "user/2"]);
    assert_eq!(keys(&["--end", "user/10"]), ["other", "user/1"]);
    assert_eq!(keys(&["--start", "p", "--end", "user/10"]), ["user/1"]);
    assert_eq!(keys(&["--start", "z", "--end", "a"]), [""; 0]);
    assert_eq!(keys(&["--limit", "2"]), ["other", "user/1"]);
    assert_eq!(keys(&["--reverse", "--limit", "2"]), ["user/2", "user/10"]);
    assert_eq!(keys(&["--hex", "--prefix", "6f"]), ["6f74686572"]);
    let run = place.ok(&["state", "scan", "s", "--prefix", "user/10"]);
    assert_eq!(run.stdout, "user/10\tgröße\n");
    place.fails(
        &["state", "scan", "s", "--prefix", "a", "--start", "b"],
        2,
        &["--prefix", "--start"],
    );
}

#[test]
fn namespaces_are_listed_described_and_cleared() {
    let place = place();
    place.ok(&["state", "put", "t", "k", "v"]);
    let run = place.ok(&["state", "list", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"namespace\":\"s\",\"entries\":4,\"stored_bytes\":0}\n{\"namespace\":\"t\",\"entries\":1,\"stored_bytes\":0}\n"
    );
    let run = place.ok(&["state", "stats", "s"]);
    assert!(run.stdout.contains("entries    4\n"), "{}", run.stdout);
    let run = place.ok(&["state", "delete", "s", "other", "nobody", "other", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"keys_deleted\":1,\"keys_not_found\":1,\"namespace\":\"s\",\"version\":6}\n"
    );
    let run = place.ok(&["state", "clear", "s"]);
    assert_eq!(run.stderr, "s: 3 keys deleted; version 7\n");
    assert_eq!(place.ok(&["state", "scan", "s"]).stdout, "");
    let run = place.ok(&["state", "stats", "s", "--json"]);
    assert!(run.stdout.contains(r#""entries":0"#), "{}", run.stdout);
    assert_eq!(place.ok(&["state", "get", "t", "k"]).stdout, "v\n");
    // Namespaces are no tables.
    let run = place.ok(&["tables"]);
    assert_eq!(run.stdout, "", "{}", run.stdout);
    let run = place.ok(&["info", "--json"]);
    assert!(
        run.stdout.contains(r#""namespaces":["s","t"]"#),
        "{}",
        run.stdout
    );
}

#[test]
fn wrong_names_and_values_are_errors_that_change_nothing() {
    let place = place();
    place.fails(&["state", "get", "s", "nobody"], 3, &["nobody", "`s`"]);
    for command in ["scan", "stats", "clear"] {
        place.fails(
            &["state", command, "ss"],
            3,
            &["namespace=`ss`", "namespaces=`s`"],
        );
    }
    place.fails(&["state", "get", "ss", "k"], 3, &["namespace=`ss`"]);
    place.fails(&["state", "delete", "ss", "k"], 3, &["namespace=`ss`"]);
    for ttl in ["0", "1", "1y", "soon"] {
        place.fails(
            &["state", "put", "s", "k", "v", "--ttl", ttl],
            2,
            &["ttl", ttl],
        );
    }
    place.fails(&["state", "put", "", "k", "v"], 2, &["name"]);
    let long = "k".repeat(70_000);
    place.fails(&["state", "put", "s", &long, "v"], 1, &["key is too long"]);
    for command in ["get", "scan", "delete", "clear", "stats"] {
        let args = ["--store", "none", "state", command, "s", "k"];
        let num_args = if matches!(command, "get" | "delete") {
            6
        } else {
            5
        };
        place.fails(&args[..num_args], 3, &["none", "--store"]);
    }
    assert!(!place.path("none").exists());
    let run = place.ok(&["state", "list", "--json"]);
    assert_eq!(
        run.stdout,
        "{\"namespace\":\"s\",\"entries\":4,\"stored_bytes\":0}\n"
    );
}
