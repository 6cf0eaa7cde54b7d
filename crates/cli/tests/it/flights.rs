//! The job on real data. The expected numbers are DuckDB's on the same files.

use std::path::Path;

use arrow_array::RecordBatch;
use darner_engine::{SourceOptions, open};

use crate::place::Place;

fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data"))
}

#[test]
fn the_job_gives_duckdbs_answers_and_redoes_only_what_changed() {
    let place = Place::new();
    for name in [
        "airlines.csv",
        "airports.csv",
        "planes.csv",
        "weather.csv",
        "flights.parquet",
        "flights.toml",
    ] {
        std::fs::copy(data().join(name), place.path(name)).unwrap();
    }
    let run = place.ok(&["run", "flights.toml"]);
    let line = |start: &str| {
        let found = run
            .stderr
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        let words: Vec<&str> = found.unwrap_or_default().split_whitespace().collect();
        words.join(" ")
    };
    assert!(
        line("flights:").starts_with("flights: 336,776 rows read, 336,776 written"),
        "{}",
        run.stderr
    );
    assert_eq!(line("airlines  "), "airlines carrier 336,776 0 0 100.00 %");
    assert_eq!(
        line("origin_airport"),
        "origin_airport origin = faa 336,776 0 0 100.00 %"
    );
    assert_eq!(
        line("dest_airport"),
        "dest_airport dest = faa 329,174 7,602 0 97.74 % SJU 5,819, BQN 896, STT 522, PSE 365"
    );
    let planes = line("planes  ");
    assert!(
        planes.starts_with("planes tailnum 284,170 50,094 2,512"),
        "{planes}"
    );
    assert!(planes.ends_with("(721 keys)"), "{planes}");
    assert!(
        line("weather  ").starts_with("weather origin, time_hour 335,220 1,556 0"),
        "{}",
        run.stderr
    );
    let summary = &run.stdout;
    assert!(
        summary.contains("| United Air Lines Inc.       | 58665   | 12.1 "),
        "{summary}"
    );
    assert_eq!(summary.lines().count(), 16 + 4, "{summary}");

    let mut source = open(
        &place.path("out/flights.parquet"),
        &SourceOptions::default(),
    )
    .unwrap();
    assert_eq!(source.schema().fields().len(), 19 + 1 + 3 + 4 + 5 + 4);
    let mut num_rows = 0;
    while let Some(piece) = source.next_piece().unwrap() {
        num_rows += piece
            .decode()
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>();
    }
    assert_eq!(num_rows, 336_776);

    let again = place.ok(&["run", "flights.toml"]);
    assert_eq!(
        again.stderr.matches("unchanged").count(),
        5,
        "{}",
        again.stderr
    );
    assert_eq!(again.stdout, run.stdout);

    let airlines = std::fs::read_to_string(place.path("airlines.csv")).unwrap();
    place.write(
        "airlines.csv",
        &airlines.replace("United Air Lines Inc.", "United"),
    );
    let changed = place.ok(&["run", "flights.toml"]);
    assert_eq!(
        changed.stderr.matches("unchanged").count(),
        3,
        "{}",
        changed.stderr
    );
    assert!(
        changed.stderr.contains("airlines: 16 rows loaded"),
        "{}",
        changed.stderr
    );
    assert!(changed.stdout.contains("| United  "), "{}", changed.stdout);

    std::fs::remove_file(place.path("out/flights.parquet")).unwrap();
    let lost = place.ok(&["run", "flights.toml"]);
    assert_eq!(
        lost.stderr.matches("unchanged").count(),
        4,
        "{}",
        lost.stderr
    );
    assert_eq!(lost.stdout, changed.stdout);
}

#[test]
fn a_wrong_job_is_refused_before_anything_is_done() {
    let place = Place::new();
    place.write(
        "job.toml",
        "store = 's'\n[dimension.a]\nfrom = 'a.csv'\nkeys = 'k'\n",
    );
    let run = place.run(&["run", "job.toml"]);
    assert_eq!(run.code, Some(2));
    for words in ["job.toml", "line 4", "`keys`", "did you mean `key`?"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    assert_eq!(place.names(), ["job.toml"]);
    let run = place.run(&["run", "none.toml"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
}
