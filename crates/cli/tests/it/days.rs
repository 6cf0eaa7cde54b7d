//! A view that a job keeps, on days of real flights that arrive one after the other.

use std::path::Path;

use crate::place::Place;

const JOB: &[&str] = &["run", "days.toml"];

/// What DuckDB's and everybody's arithmetic is compared on: the view, and its query on the files that are there.
fn rows(place: &Place, from: &str) -> String {
    let query = format!(
        "SELECT airline, month, flights, round(mean_dep_delay, 6) AS mean, max_dep_delay FROM {from} ORDER BY airline"
    );
    let store = place.path("out/days-store");
    let store = store.to_str().unwrap();
    place
        .ok(&["--store", store, "sql", &query, "--format", "csv"])
        .stdout
}

#[test]
fn days_that_arrive_are_counted_once_each() {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data"));
    let place = Place::new();
    for name in ["airlines.csv", "flights.parquet", "days.toml"] {
        std::fs::copy(data.join(name), place.path(name)).unwrap();
    }
    std::fs::create_dir_all(place.path("out/days")).unwrap();
    let day = |day: u32| format!("out/days/2013-01-{day:02}.parquet");
    let query = "(SELECT airlines.name AS airline, date_trunc('month', time_hour) AS month, count(*) AS flights, \
                 avg(dep_delay) AS mean_dep_delay, max(dep_delay) AS max_dep_delay FROM 'out/days/*.parquet' AS flights \
                 JOIN airlines ON flights.carrier = airlines.carrier \
                 GROUP BY airlines.name, date_trunc('month', time_hour))";
    for number in 1..=4 {
        let split = format!("SELECT * FROM 'flights.parquet' WHERE month = 1 AND day = {number}");
        place.ok(&["sql", &split, "-o", &day(number)]);
        let run = place.ok(JOB);
        let said = if number == 1 {
            "delays: created, 1 file,"
        } else {
            "delays: merged, 1 file,"
        };
        assert!(run.stderr.contains(said), "{}", run.stderr);
        assert_eq!(rows(&place, "delays"), rows(&place, query));
    }
    let run = place.ok(JOB);
    assert!(run.stderr.contains("delays: up to date"), "{}", run.stderr);
    let before = rows(&place, "delays");

    // A day that is another now is no news, but an error that names it, and the view stays.
    std::fs::copy(place.path(&day(1)), place.path(&day(3))).unwrap();
    place.fails(JOB, 1, &["view delays", "2013-01-03.parquet", "rebuild"]);
    assert_eq!(rows(&place, "delays"), before);
    place.ok(&[
        "run",
        "days.toml",
        "--set",
        "view.delays.on_file_change=rebuild",
    ]);
    assert_eq!(rows(&place, "delays"), rows(&place, query));
}

#[test]
fn a_view_of_an_output_follows_it_and_steps_come_in_order() {
    let place = Place::new();
    place.write("codes.csv", "code,name\na,Anna\nb,Bob\n");
    place.write("facts.csv", "code,n\na,1\nb,2\na,4\n");
    place.write(
        "job.toml",
        r#"
        store = "store"
        [view.sums]
        query = "SELECT name, sum(n) AS total FROM enriched GROUP BY name"
        [enrich.enriched]
        from = "facts.csv"
        join = "codes on code select name"
        to = "out/enriched.csv"
        [enrich.totals]
        from = "facts.csv"
        join = "codes on code select name"
        to = "out/totals.csv"
        [enrich.shares]
        from = "out/totals.csv"
        join = "sums on name"
        to = "out/shares.csv"
        [dimension.codes]
        from = "codes.csv"
        key = "code"
        [summary.all]
        query = "SELECT * FROM sums ORDER BY name"
        "#,
    );
    let check = place.ok(&["check", "job.toml"]);
    assert!(
        check.stdout.contains("there is no such view yet"),
        "{}",
        check.stdout
    );
    assert!(check.stdout.contains("total"), "{}", check.stdout);
    let run = place.ok(&["run", "job.toml"]);
    assert!(run.stdout.contains("| Anna | 5     |"), "{}", run.stdout);
    let shares = || std::fs::read_to_string(place.path("out/shares.csv")).unwrap();
    assert_eq!(
        shares(),
        "code,n,name,total\na,1,Anna,5\nb,2,Bob,2\na,4,Anna,5\n"
    );
    // The output is written anew, so all of it is counted anew.
    place.write("codes.csv", "code,name\na,Ada\nb,Bob\n");
    let run = place.ok(&["run", "job.toml"]);
    assert!(
        run.stdout.contains("| Ada  | 5     |"),
        "{}\n{}",
        run.stdout,
        run.stderr
    );
    assert!(!run.stdout.contains("Anna"), "{}", run.stdout);
    let run = place.ok(&["run", "job.toml"]);
    assert!(run.stderr.contains("sums: up to date"), "{}", run.stderr);
    assert!(run.stderr.contains("shares: unchanged"), "{}", run.stderr);
    assert!(shares().contains("a,4,Ada,5"), "{}", shares());
    let check = place.ok(&["check", "job.toml"]);
    assert!(check.stdout.contains("total"), "{}", check.stdout);
    place.write(
        "same.toml",
        "store = 's'\n[dimension.a]\nfrom = 'a.csv'\nkey = 'k'\n[view.a]\nquery = 'SELECT 1'\n",
    );
    place.fails(
        &["run", "same.toml"],
        2,
        &["one name", "`a`", "dimension, view"],
    );
    let circle =
        "store = 's'\n[view.a]\nquery = 'SELECT x FROM b'\n[view.b]\nquery = 'SELECT x FROM a'\n";
    place.write("circle.toml", circle);
    place.fails(&["run", "circle.toml"], 2, &["circle", "view a", "view b"]);
}
