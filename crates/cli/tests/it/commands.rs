//! Each command on small tables.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use crate::place::{Place, Run};

const AIRPORTS: &str = "faa,name,alt\nJFK,John F Kennedy Intl,13\nLGA,La Guardia,22\nSJU,,NA\n";
const FLIGHTS: &str = "flight,dest\n1,JFK\n2,BQN\n3,SJU\n4,\n5,JFK\n6,BQN\n";

fn place() -> Place {
    let place = Place::new();
    place.write("airports.csv", AIRPORTS);
    place.write("flights.csv", FLIGHTS);
    let run = place.ok(&[
        "load",
        "airports",
        "airports.csv",
        "--key",
        "faa",
        "--null",
        "NA",
    ]);
    assert!(
        run.stderr
            .starts_with("airports: 3 rows loaded as version 1"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stdout, "");
    place
}

#[test]
fn rows_are_found_by_key_scanned_and_deleted() {
    let place = place();
    let run = place.ok(&["get", "airports", "SJU", "JFK", "--format", "csv"]);
    assert_eq!(
        run.stdout,
        "faa,name,alt\nSJU,,\nJFK,John F Kennedy Intl,13\n"
    );
    let run = place.run(&["get", "airports", "JFK", "QQQ"]);
    assert_eq!(run.code, Some(3));
    assert!(run.stdout.contains("John F Kennedy Intl"));
    assert!(run.stderr.contains("QQQ"), "{}", run.stderr);
    let run = place.ok(&[
        "scan", "airports", "--select", "alt,faa", "--limit", "2", "--format", "csv",
    ]);
    assert_eq!(run.stdout, "alt,faa\n13,JFK\n22,LGA\n");
    place.ok(&["delete", "airports", "LGA", "QQQ"]);
    place.write("closed.csv", "when,faa\n2013-01-01,SJU\n2013-01-02,SJU\n");
    let run = place.ok(&["delete", "airports", "--from", "closed.csv", "--json"]);
    assert!(run.stdout.contains(r#""rows_deleted":1"#), "{}", run.stdout);
    let run = place.ok(&["--json", "scan", "airports"]);
    assert_eq!(
        run.stdout,
        "{\"faa\":\"JFK\",\"name\":\"John F Kennedy Intl\",\"alt\":13}\n"
    );
}

#[test]
fn a_composite_key_is_written_with_commas() {
    let place = Place::new();
    place.write(
        "w.csv",
        "day,at,temp\n2013-01-01,JFK,1.5\n2013-01-02,JFK,2.5\n",
    );
    place.ok(&["load", "weather", "w.csv", "--key", "at,day"]);
    let run = place.ok(&["get", "weather", "JFK,2013-01-02", "--format", "csv"]);
    assert_eq!(run.stdout, "day,at,temp\n2013-01-02,JFK,2.5\n");
    let run = place.run(&["get", "weather", "JFK"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("2 parts") && run.stderr.contains("at,day"),
        "{}",
        run.stderr
    );
}

#[test]
fn facts_are_enriched_and_the_report_says_what_missed() {
    let place = place();
    let join = "airports on dest = faa select name as dest_name";
    let run = place.ok(&[
        "enrich",
        "flights.csv",
        "--with",
        join,
        "-o",
        "out.csv",
        "--unmatched",
        "missed.csv",
        "--report",
        "report.json",
    ]);
    let out = std::fs::read_to_string(place.path("out.csv")).unwrap();
    assert_eq!(
        out,
        "flight,dest,dest_name\n1,JFK,John F Kennedy Intl\n2,BQN,\n3,SJU,\n4,,\n5,JFK,John F Kennedy Intl\n6,BQN,\n"
    );
    let missed = std::fs::read_to_string(place.path("missed.csv")).unwrap();
    assert_eq!(
        missed,
        "flight,dest,missed_in\n2,BQN,airports\n6,BQN,airports\n"
    );
    assert!(run.stderr.contains("BQN 2"), "{}", run.stderr);
    let report = std::fs::read_to_string(place.path("report.json")).unwrap();
    for words in [
        r#""matched": 3"#,
        r#""missed": 2"#,
        r#""null_keys": 1"#,
        r#""version": 1"#,
    ] {
        assert!(report.contains(words), "{report} lacks {words}");
    }
    for (kind, flights) in [("inner", "135"), ("semi", "135"), ("anti", "246")] {
        let join = format!("{kind} airports on dest = faa");
        let args = [
            "enrich",
            "flights.csv",
            "--with",
            &join,
            "-o",
            "-",
            "--format",
            "csv",
        ];
        let run = place.ok(&args);
        let found: String = run
            .stdout
            .lines()
            .skip(1)
            .filter_map(|line| line.split(',').next())
            .collect();
        assert_eq!(found, flights, "{kind}");
    }
}

#[test]
fn a_plan_is_explained_and_a_run_is_profiled() {
    let place = place();
    let join = "airports as there on dest = faa select name as dest_name";
    let command = ["enrich", "flights.csv", "--with", join, "--explain"];
    let run = place.ok(&command);
    let expected = [
        "facts    flights.csv, 45 B, 2 columns",
        "join     left airports as there on dest = faa",
        "3 rows of version 1",
        "index bytes (one column of bytes)",
        "+ dest_name = name: Utf8, plain",
        "output   3 columns",
    ];
    for line in expected {
        assert!(run.stdout.contains(line), "{line} in {}", run.stdout);
    }
    // What would be written is not.
    let run = place.ok(&[&command[..], &["--json", "-o", "out.csv"]].concat());
    let plan: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(plan["joins"][0]["columns"][0]["column"], "name");
    assert_eq!(plan["output"], "out.csv");
    assert!(!place.path("out.csv").exists());
    place.fails(
        &[&command[..], &["-o", "out.xyz"]].concat(),
        2,
        &["out.xyz", "extension"],
    );
    place.fails(
        &[&command[..], &["-o", "flights.csv"]].concat(),
        2,
        &["one of the inputs"],
    );

    let command = ["enrich", "flights.csv", "--with", join, "-o", "out.csv"];
    let run = place.ok(&[&command[..], &["--profile"]].concat());
    for stage in [
        "read there",
        "decode facts",
        "probe there",
        "gather there",
        "write",
    ] {
        assert!(run.stderr.contains(stage), "{stage} in {}", run.stderr);
    }
    let run = place.ok(&[&command[..], &["--profile", "--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["profile"]["rows_read"], 6);
    assert_eq!(report["profile"]["joins"][0]["rows"], 6);
    assert!(report["profile"]["run"].as_f64().unwrap() > 0.0);
    let run = place.ok(&[&command[..], &["--json"]].concat());
    assert!(!run.stdout.contains("profile"), "{}", run.stdout);
}

#[test]
fn a_gate_that_is_not_met_leaves_the_last_good_output() {
    let place = place();
    place.write("out.csv", "the last good output");
    let enrich = |rate: &str| {
        place.run(&[
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest = faa",
            "-o",
            "out.csv",
            "--max-miss-rate",
            rate,
        ])
    };
    let run = enrich("0.39");
    assert_eq!(run.code, Some(4));
    assert!(
        run.stderr.contains("0.4000") && run.stderr.contains("BQN 2"),
        "{}",
        run.stderr
    );
    assert_eq!(
        std::fs::read_to_string(place.path("out.csv")).unwrap(),
        "the last good output"
    );
    assert_eq!(enrich("0.4").code, Some(0));
    assert!(
        std::fs::read_to_string(place.path("out.csv"))
            .unwrap()
            .starts_with("flight,")
    );
}

#[test]
fn pipes_go_in_and_out() {
    let place = place();
    place.ok(&["sql", "SELECT * FROM 'flights.csv'", "-o", "flights.arrows"]);
    let mut first = place
        .command()
        .args([
            "enrich",
            "-",
            "--with",
            "airports on dest = faa",
            "-o",
            "-",
            "--quiet",
        ])
        .stdin(std::fs::File::open(place.path("flights.arrows")).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let second = place
        .command()
        .args([
            "enrich",
            "-",
            "--with",
            "anti airports as a on dest = faa",
            "-o",
            "-",
            "--format",
            "ndjson",
        ])
        .stdin(first.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(first.wait().unwrap().success());
    let run = Run::of(second);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stdout.lines().count(), 3, "{}", run.stdout);
    let mut load = place
        .command()
        .args(["load", "more", "-", "--key", "id", "--input-format", "csv"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    load.stdin
        .take()
        .unwrap()
        .write_all(b"id,x\n1,a\n2,b\n")
        .unwrap();
    assert!(load.wait().unwrap().success());
    assert_eq!(
        place.ok(&["scan", "more", "--format", "csv"]).stdout,
        "id,x\n1,a\n2,b\n"
    );
}

#[test]
fn sql_reads_tables_and_files() {
    let place = place();
    let run = place.ok(&[
        "sql",
        "SELECT a.name, count(*) AS n FROM 'flights.csv' f JOIN airports a ON f.dest = a.faa GROUP BY 1 ORDER BY 2 DESC",
        "--format",
        "csv",
    ]);
    assert_eq!(run.stdout, "name,n\nJohn F Kennedy Intl,2\n,1\n");
    let run = place.ok(&["sql", "SELECT alt, faa FROM airports WHERE alt > 13"]);
    assert!(run.stdout.contains("| 22  | LGA |"), "{}", run.stdout);
    let run = place.run(&["sql", "SELEC 1"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn a_file_that_is_added_is_read_with_the_types_of_its_table() {
    let place = Place::new();
    place.write("zips.csv", "zip,name\nO1234,a\n");
    place.ok(&["load", "zips", "zips.csv", "--key", "zip"]);
    // Alone these would be numbers; the columns stand in another order; and there may be no rows at all.
    place.write("more.csv", "name,zip\n5,00701\n");
    place.write("none.csv", "zip,name\n");
    place.write("more.ndjson", "{\"zip\":\"2\",\"name\":null}\n");
    for file in ["more.csv", "none.csv", "more.ndjson"] {
        place.ok(&["load", "zips", file]);
    }
    let run = place.ok(&["scan", "zips", "--format", "csv"]);
    assert_eq!(run.stdout, "zip,name\nO1234,a\n00701,5\n2,\n");
    place.ok(&["drop", "zips"]);
    assert_eq!(place.run(&["scan", "zips"]).code, Some(3));
    assert_eq!(place.run(&["drop", "zips"]).code, Some(3));
}

#[test]
fn parquet_outputs_mean_the_same_to_every_reader() {
    let place = Place::new();
    place.write(
        "d.csv",
        "id,at,day\n1,2013-01-01T06:00:00Z,2013-01-01\n2,2013-01-01T07:00:00Z,2013-01-02\n",
    );
    place.ok(&["load", "d", "d.csv", "--key", "id"]);
    for encoding in ["plain", "view", "dictionary"] {
        let join = "d on id select at as at2, day as day2";
        let args = [
            "enrich",
            "d.csv",
            "--with",
            join,
            "--encoding",
            encoding,
            "-o",
            "o.parquet",
        ];
        place.ok(&args);
        let types = "SELECT arrow_typeof(at) AS a, arrow_typeof(at2) AS b, at = at2 AS c FROM 'o.parquet' LIMIT 1";
        let run = place.ok(&["sql", types, "--format", "tsv"]);
        // Parquet has no seconds.
        assert!(!run.stdout.contains("Timestamp(s"), "{}", run.stdout);
        assert!(run.stdout.ends_with("true\n"), "{}", run.stdout);
    }
}

#[test]
fn columns_of_ndjson_stay_in_their_order() {
    let place = Place::new();
    place.write(
        "f.ndjson",
        "{\"z\":1,\"a\":\"x\"}\n{\"z\":2,\"k\":true,\"a\":\"y\"}\n",
    );
    place.ok(&["load", "t", "f.ndjson", "--key", "z"]);
    let run = place.ok(&["scan", "t", "--format", "csv"]);
    assert_eq!(run.stdout, "z,a,k\n1,x,\n2,y,true\n");
}

#[test]
fn tables_and_info_say_what_is_there() {
    let place = place();
    let run = place.ok(&["tables"]);
    assert!(
        run.stdout.contains("airports") && run.stdout.contains("faa"),
        "{}",
        run.stdout
    );
    let run = place.ok(&["info", "airports"]);
    for words in ["key      faa", "rows     3", "name  Utf8", "index    bytes"] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    let run = place.ok(&["info", "airports", "--json"]);
    assert!(run.stdout.contains(r#""rows":3"#), "{}", run.stdout);
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let place = place();
    let program = env!("CARGO_BIN_EXE_darner");
    let script = format!(
        "'{program}' sql 'SELECT * FROM generate_series(1, 1000000)' --format csv | head -n 1"
    );
    let run = Run::of(
        Command::new("sh")
            .args(["-c", &script])
            .current_dir(place.dir())
            .output()
            .unwrap(),
    );
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("value\n", ""));
}
