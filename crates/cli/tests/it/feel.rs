//! What it is like to use: guessed jobs, manuals, notes for people and for programs, metrics.

use std::path::Path;

use crate::place::Place;

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data"))
}

/// The sample data, in `data/`.
fn with_data() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("data")).unwrap();
    for name in [
        "airlines.csv",
        "airports.csv",
        "planes.csv",
        "weather.csv",
        "flights.parquet",
    ] {
        std::fs::copy(data().join(name), place.path("data").join(name)).unwrap();
    }
    place
}

#[test]
fn a_guessed_job_is_one_that_check_accepts() {
    let place = with_data();
    place.ok(&["init", "data/", "-o", "job.toml"]);
    let job = std::fs::read_to_string(place.path("job.toml")).unwrap();
    for words in [
        "[dimension.airlines]\nfrom = \"data/airlines.csv\"\nkey = \"carrier\"",
        "[dimension.airports]\nfrom = \"data/airports.csv\"\nkey = \"faa\"",
        "[dimension.planes]\nfrom = \"data/planes.csv\"\nkey = \"tailnum\"",
        "null = \"NA\"",
        "[enrich.flights]\nfrom = \"data/flights.parquet\"",
        "\"airlines on carrier\"",
        "\"airports as origin_airports on origin = faa\"",
        "\"airports as dest_airports on dest = faa\"",
        "\"planes on tailnum\"",
    ] {
        assert!(job.contains(words), "{job} lacks {words}");
    }
    let run = place.ok(&["check", "job.toml"]);
    assert!(run.stdout.contains("enrich  flights"), "{}", run.stdout);
    place.ok(&["run", "job.toml"]);
    assert!(place.path("out/flights.parquet").exists());
    place.fails(
        &["init", "data/", "-o", "job.toml"],
        2,
        &["is not replaced"],
    );
    place.fails(&["init", "none/*.csv"], 3, &["none/*.csv"]);
}

#[test]
fn strange_files_are_told_of_and_guessed_around() {
    let place = Place::new();
    place.write("2 odd-names.csv", "a b,\"x,y\"\n1,q\n1,q\n");
    place.write("${X}.csv", "id,select\n1,u\n2,v\n");
    place.write("facts.csv", "select,n\nu,1\nu,1\nv,2\nu,3\n");
    place.write("empty.csv", "id\n");
    place.write("dim.csv", "select,name\nu,1\nv,1\nw,1\n");
    let job = place.ok(&["init", "."]).stdout;
    for words in ["no one or two columns tell", "$${X}.csv", "[enrich.facts]"] {
        assert!(job.contains(words), "{job} lacks {words}");
    }
    place.write("job.toml", &job);
    place.ok(&["check", "job.toml"]);
    place.write("broken.parquet", "PAR1 and nothing else");
    place.fails(&["init", "broken.parquet"], 1, &["broken.parquet"]);
}

#[test]
fn manuals_and_completions_know_all_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.ok(&["completions", shell]).stdout;
        assert!(
            script.contains("enrich") && script.contains("max-miss-rate"),
            "{shell}"
        );
    }
    assert!(place.ok(&["man"]).stdout.contains(".TH darner 1"));
    place.ok(&["man", "made/man1"]);
    let page = std::fs::read_to_string(place.path("made/man1/darner-enrich.1")).unwrap();
    assert!(page.contains("on_miss"));
    place.write("file", "");
    place.fails(&["man", "file/man1"], 2, &["file/man1"]);
    // Each command that does something has an example.
    for command in [
        "run", "check", "init", "load", "enrich", "get", "scan", "delete", "sql", "man",
    ] {
        let help = place.ok(&[command, "--help"]).stdout;
        assert!(help.contains("Example"), "{command}");
    }
}

const JOB: &str = "
store = 'store'

[dimension.d]
from = 'd.csv'
key = 'k'

[enrich.e]
from = 'f.csv'
join = 'd on k'
to = 'out.csv'
report = 'report.json'
";

fn small() -> Place {
    let place = Place::new();
    place.write("job.toml", JOB);
    place.write("d.csv", "k,v\n1,a\n2,b\n");
    place.write("f.csv", "k\n1\n2\n3\n3\n");
    place
}

#[test]
fn metrics_are_written_of_runs_that_succeed_and_that_fail() {
    let place = small();
    let args = ["run", "job.toml", "--metrics-file", "m.prom"];
    let metrics = || std::fs::read_to_string(place.path("m.prom")).unwrap();
    place.ok(&args);
    let text = metrics();
    for line in [
        "darner_run_success 1",
        "darner_run_exit_code 0",
        "darner_step_skipped{step=\"e\"} 0",
        "darner_dimension_rows{dimension=\"d\"} 2",
        "darner_rows_written{step=\"e\"} 4",
        "darner_join_rows{step=\"e\",join=\"d\",result=\"missed\"} 2",
        "# TYPE darner_join_rows gauge",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{text} lacks {line}"
        );
    }
    // Every line is a comment or `name{labels} number`, and no series comes twice.
    let mut series: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!series.contains(&name), "{line}");
        series.push(name);
    }
    place.ok(&args);
    assert!(metrics().contains("darner_step_skipped{step=\"e\"} 1\n"));
    assert!(metrics().contains("darner_rows_written{step=\"e\"} 4\n"));
    let gate = ["--set", "enrich.e.max_miss_rate=0.1"];
    let run = place.run(&[&args[..], &gate].concat());
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(metrics().contains("darner_run_success 0\n"));
    assert!(metrics().contains("darner_run_exit_code 4\n"));
}

#[test]
fn notes_are_for_people_or_for_programs() {
    let place = small();
    let run = place.ok(&["run", "job.toml", "-v"]);
    assert!(
        run.stderr
            .contains("d: to be loaded: the table is not there yet"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .contains("e: to be made: it was not made by this job yet"),
        "{}",
        run.stderr
    );
    assert_eq!(place.ok(&["run", "job.toml", "-q"]).stderr, "");
    place.write("f.csv", "k\n1\n");
    let run = place.ok(&["run", "job.toml", "--log-format", "json"]);
    let args = [
        "run",
        "job.toml",
        "--log-format",
        "json",
        "--set",
        "enrich.e.min_rows=9",
    ];
    let failed = place.run(&args);
    assert_eq!(failed.code, Some(4));
    for line in run.stderr.lines().chain(failed.stderr.lines()) {
        let is_object = line.starts_with("{\"level\":\"") && line.ends_with('}');
        assert!(is_object && line.contains("\"time\":\"20"), "{line}");
    }
    assert!(
        failed
            .stderr
            .contains("\"level\":\"error\",\"message\":\"enrich e: 1 row, less"),
        "{}",
        failed.stderr
    );
    assert_eq!(place.run(&["run", "job.toml", "-q", "-v"]).code, Some(2));
}

#[test]
fn a_report_is_written_for_programs() {
    let place = small();
    place.ok(&["run", "job.toml"]);
    let text = std::fs::read_to_string(place.path("report.json")).unwrap();
    for words in [
        "\"rows_read\": 4",
        "\"inputs\": [\n    \"f.csv\"\n  ]",
        "\"table\": \"d\"",
        "\"version\": 1",
        "\"committed\": \"20",
        "\"miss_rate\": 0.5",
        "\"on_miss\": \"null\"",
        "\"dimensions_bytes\": ",
    ] {
        assert!(text.contains(words), "{text} lacks {words}");
    }
}

/// The job of the README, on the data of the repository.
#[test]
fn the_job_of_the_readme_runs() {
    let readme = include_str!("../../../../README.md");
    let (_, job) = readme.split_once("```toml\n").unwrap();
    let (job, _) = job.split_once("```").unwrap();
    let place = with_data();
    place.write("nightly.toml", job);
    place.ok(&["check", "nightly.toml"]);
    let run = place.ok(&["run", "nightly.toml"]);
    assert!(
        run.stderr.contains("flights: 1 of 1 files enriched"),
        "{}",
        run.stderr
    );
    let sql = "SELECT count(*) AS n, count(DISTINCT carrier) AS c, count(airline) AS a FROM 'out/flights/'";
    // All flights from JFK, as DuckDB counts them.
    let answer = place.ok(&["sql", sql, "--format", "csv"]).stdout;
    assert_eq!(answer, "n,c,a\n111279,10,111279\n");
    let again = place.ok(&["run", "nightly.toml"]);
    assert!(
        again.stderr.contains("flights: unchanged, 1 files"),
        "{}",
        again.stderr
    );
}
