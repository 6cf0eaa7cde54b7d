//! The match contract: what becomes of missed rows, how keys are made comparable, and what must hold of an output.

use crate::place::Place;

fn place() -> Place {
    let place = Place::new();
    place.write(
        "airports.csv",
        "code,city,lat\nJFK,New York,40.6\nSFO,San Francisco,37.6\n",
    );
    place.write("flights.csv", "flight,dest\n1,JFK\n2, sfo\n3,XXX\n4,\n");
    place.ok(&["load", "airports", "airports.csv", "--key", "code"]);
    place
}

#[track_caller]
fn enriched(place: &Place, join: &str, more: &[&str]) -> String {
    let mut args = vec![
        "enrich",
        "flights.csv",
        "--with",
        join,
        "-o",
        "-",
        "--format",
        "csv",
    ];
    args.extend(more);
    place.ok(&args).stdout
}

#[test]
fn missed_rows_become_what_the_join_says() {
    let place = place();
    let on = "airports on dest=code select city";
    for (contract, expected) in [
        ("", "1,JFK,New York\n2, sfo,\n3,XXX,\n4,,\n"),
        ("on_miss null", "1,JFK,New York\n2, sfo,\n3,XXX,\n4,,\n"),
        ("on_miss drop", "1,JFK,New York\n4,,\n"),
        (
            "on_miss default city=\"no where\"",
            "1,JFK,New York\n2, sfo,no where\n3,XXX,no where\n4,,\n",
        ),
    ] {
        let rows = enriched(&place, &format!("{on} {contract}"), &[]);
        assert_eq!(rows, format!("flight,dest,city\n{expected}"), "{contract}");
    }
    let normal = enriched(
        &place,
        "airports on upper(trim(dest))=code select city on_miss drop",
        &[],
    );
    assert_eq!(
        normal,
        "flight,dest,city\n1,JFK,New York\n2, sfo,San Francisco\n4,,\n"
    );
    let join = format!("{on} on_miss route");
    let rows = enriched(&place, &join, &["--unmatched", "bad.csv"]);
    assert_eq!(rows, "flight,dest,city\n1,JFK,New York\n4,,\n");
    let bad = std::fs::read_to_string(place.path("bad.csv")).unwrap();
    assert_eq!(
        bad,
        "flight,dest,missed_in\n2, sfo,airports\n3,XXX,airports\n"
    );
    for (join, code, words) in [
        (join.as_str(), 2, "--unmatched"),
        ("airports on dest=code on_miss error", 1, "key=` sfo`"),
        ("airports on dest=code on_miss default ctiy=x", 2, "ctiy"),
        (
            "airports on dest=code on_miss default lat=north",
            2,
            "default of `lat`",
        ),
        ("airports on uper(dest)=code", 2, "`upper`"),
        (
            "airports on trim(flight)=code",
            2,
            "cast the column to string first",
        ),
    ] {
        place.fails(
            &["enrich", "flights.csv", "--with", join, "-o", "out.csv"],
            code,
            &[words],
        );
        assert!(!place.path("out.csv").exists());
    }
}

#[test]
fn rows_and_columns_can_be_computed() {
    let place = place();
    let join = "airports on dest=code select city, lat";
    let rows = enriched(
        &place,
        join,
        &[
            "--where",
            "flight <= 2",
            "--column",
            "flight",
            "--column",
            "lat * 10 as l",
        ],
    );
    assert_eq!(rows, "flight,l\n1,406.0\n2,\n");
    // A condition on what the join adds.
    let rows = enriched(&place, join, &["--where", "city IS NOT NULL"]);
    assert_eq!(rows, "flight,dest,city,lat\n1,JFK,New York,40.6\n");
    // Rows that are left out before the join are not missed by it.
    let args = [
        "enrich",
        "flights.csv",
        "--with",
        join,
        "-o",
        "out.csv",
        "--max-miss-rate",
        "0",
    ];
    let run = place.ok(&[&args[..], &["--where", "dest = 'JFK'"]].concat());
    assert!(
        run.stderr.contains("4 rows read, 1 written"),
        "{}",
        run.stderr
    );
    for (wrong, words) in [
        ("flihgt > 1", "flihgt"),
        ("flight >", "where"),
        ("count(*) > 1", "ggregat"),
    ] {
        let args = [
            "enrich",
            "flights.csv",
            "--with",
            join,
            "-o",
            "new.csv",
            "--where",
            wrong,
        ];
        place.fails(&args, 2, &[words]);
    }
    let explained = place.ok(&[
        "enrich",
        "flights.csv",
        "--with",
        join,
        "--column",
        "*",
        "--explain",
    ]);
    assert!(
        explained.stdout.contains("output   4 columns"),
        "{}",
        explained.stdout
    );
}

const JOB: &str = "
store = 'store'

[dimension.airports]
from = 'airports.csv'
key = 'code'

[enrich.flights]
from = 'flights.csv'
join = [{ join = 'airports on dest = code select city' }]
to = 'out.csv'
";

#[test]
fn a_gate_that_is_not_met_leaves_the_last_good_output() {
    let place = place();
    place.write("job.toml", JOB);
    place.ok(&["run", "job.toml"]);
    let good = std::fs::read(place.path("out.csv")).unwrap();
    for (from, to, words) in [
        (
            "city' }",
            "city', max_miss_rate = 0.5 }",
            "0.6667 of the keys are missing",
        ),
        (
            "to = ",
            "max_miss_rate = 0.5\nto = ",
            "more than the 0.5 allowed (2 of 3 rows",
        ),
        (
            "to = ",
            "min_rows = 5\nto = ",
            "4 rows, less than the 5 asked for",
        ),
        (
            "city' }",
            "city', max_age = '0' }",
            "more than the 0 allowed",
        ),
        (
            "to = ",
            "max_dimension_age = '0'\nto = ",
            "ago, more than the 0 allowed",
        ),
        (
            "'airports.csv'",
            "'none.csv'",
            "airports: the dimension has no rows",
        ),
    ] {
        place.write("none.csv", "code,city\n");
        place.write("gate.toml", &JOB.replacen(from, to, 1));
        let run = place.run(&["run", "gate.toml"]);
        assert_eq!(run.code, Some(4), "{to}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
        assert_eq!(std::fs::read(place.path("out.csv")).unwrap(), good, "{to}");
    }
    let allowed = JOB
        .replace("'airports.csv'", "'none.csv'")
        .replace("city' }", "city', empty = 'allow' }");
    place.write("gate.toml", &allowed);
    place.ok(&["run", "gate.toml"]);
    for (more, code, words) in [
        (&["--min-rows", "9"][..], 4, "less than the 9"),
        (&["--max-dimension-age", "0"][..], 4, "more than the 0 "),
        (
            &["--memory-limit", "10"][..],
            1,
            "more than the 10 B of --memory-limit: airports",
        ),
    ] {
        let args = [
            "enrich",
            "flights.csv",
            "--with",
            "airports on dest=code",
            "-o",
            "x.csv",
        ];
        place.fails(&[&args[..], more].concat(), code, &[words]);
    }
}

#[test]
fn the_match_contract_of_a_job_is_declared_join_by_join() {
    let place = place();
    let table = "{ join = 'airports on upper(trim(dest)) = code select city, lat', default = { city = 'no where', lat = -1 } }";
    let job = JOB.replace("{ join = 'airports on dest = code select city' }", table);
    place.write("job.toml", &job);
    place.ok(&["run", "job.toml"]);
    let rows = std::fs::read_to_string(place.path("out.csv")).unwrap();
    let expected = "1,JFK,New York,40.6\n2, sfo,San Francisco,37.6\n3,XXX,no where,-1.0\n4,,,\n";
    assert_eq!(rows, format!("flight,dest,city,lat\n{expected}"));
    for (from, to, words) in [
        (
            "default = {",
            "on_miss = 'drop', default = {",
            "default values and on_miss default go together",
        ),
        (
            "default = {",
            "on_mis = 'drop', default = {",
            "did you mean `on_miss`?",
        ),
        ("lat = -1", "lat = [1]", "a default is one value"),
        ("lat = -1", "lta = 1", "lta"),
        (
            "to = 'out.csv'",
            "to = 'out.csv'\nunmatched = 'bad/'",
            "`to` must be one too",
        ),
        (
            "to = 'out.csv'",
            "to = 'out.csv'\nmax_dimension_age = '7 apples'",
            "a duration is written",
        ),
    ] {
        place.write("wrong.toml", &job.replacen(from, to, 1));
        place.fails(&["run", "wrong.toml"], 2, &[words]);
        assert_eq!(place.run(&["check", "wrong.toml"]).code, Some(2), "{to}");
    }
}

#[test]
fn an_output_says_where_it_comes_from() {
    let place = place();
    place.write("job.toml", &JOB.replace("out.csv", "out.parquet"));
    place.ok(&["run", "job.toml"]);
    let source = darner_engine::open(
        &place.path("out.parquet"),
        &darner_engine::SourceOptions::default(),
    );
    let schema = std::sync::Arc::clone(source.unwrap().schema());
    let metadata = |name: &str| schema.metadata().get(name).cloned().unwrap_or_default();
    assert_eq!(metadata("darner.job"), "job.toml");
    assert_eq!(metadata("darner.step"), "flights");
    assert_eq!(metadata("darner.inputs"), "[\"flights.csv\"]");
    assert_eq!(
        metadata("darner.dimensions"),
        "[{\"table\":\"airports\",\"version\":1}]"
    );
}
