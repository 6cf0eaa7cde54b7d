//! What a job does, in which order, and what it says before.

use crate::place::Place;

/// A job of two dimensions, of which one comes from an enrichment, and two enrichments.
const CHAIN: &str = "
store = 'store'

[dimension.cities]
from = 'out/named.csv'
key = 'city'

[dimension.countries]
from = 'countries.csv'
key = 'code'

[enrich.visits]
from = 'visits.csv'
join = 'cities on city select country_name'
to = '${OUT:-out}/visits.csv'

[enrich.named]
from = 'cities.csv'
join = 'countries on country = code select name as country_name'
to = 'out/named.csv'

[summary.count]
query = 'SELECT country_name, count(*) AS visits FROM visits GROUP BY 1 ORDER BY 1'
";

fn chain() -> Place {
    let place = Place::new();
    place.write("job.toml", CHAIN);
    place.write("countries.csv", "code,name\nfr,France\nit,Italy\n");
    place.write("cities.csv", "city,country\nParis,fr\nRome,it\nMilan,it\n");
    place.write(
        "visits.csv",
        "visit,city\n1,Rome\n2,Paris\n3,Milan\n4,Oslo\n",
    );
    place
}

fn read(place: &Place, name: &str) -> String {
    std::fs::read_to_string(place.path(name)).unwrap()
}

#[test]
fn steps_are_done_when_what_they_read_is_there() {
    let place = chain();
    place.ok(&["run", "job.toml"]);
    assert_eq!(
        read(&place, "out/visits.csv"),
        "visit,city,country_name\n1,Rome,Italy\n2,Paris,France\n3,Milan,Italy\n4,Oslo,\n"
    );
    let again = place.ok(&["run", "job.toml"]);
    assert_eq!(
        again.stderr.matches("unchanged").count(),
        4,
        "{}",
        again.stderr
    );
    // A change goes through all that depends on it.
    place.write("countries.csv", "code,name\nfr,France\nit,Italia\n");
    place.ok(&["run", "job.toml"]);
    assert!(read(&place, "out/visits.csv").contains("3,Milan,Italia\n"));
}

#[test]
fn only_some_steps_can_be_asked_for_and_settings_change_the_job() {
    let place = chain();
    let run = place.ok(&[
        "run",
        "job.toml",
        "--only",
        "countries",
        "--only",
        "enrich.named",
    ]);
    assert!(
        run.stderr.contains("countries: 2 rows loaded"),
        "{}",
        run.stderr
    );
    assert!(place.path("out/named.csv").exists() && !place.path("out/visits.csv").exists());
    place.ok(&[
        "run",
        "job.toml",
        "--set",
        "OUT=other",
        "--set",
        "enrich.visits.select=['visit']",
    ]);
    assert_eq!(
        read(&place, "other/visits.csv"),
        "visit,country_name\n1,Italy\n2,France\n3,Italy\n4,\n"
    );
    let mut command = place.command();
    command.env("OUT", "third").args(["run", "job.toml"]);
    assert!(command.output().unwrap().status.success());
    assert!(place.path("third/visits.csv").exists());
    for (args, words) in [
        (["--only", "nmaed"], "did you mean `named`?"),
        (["--set", "OTU=x"], "no variable ${OTU}"),
        (
            ["--set", "enrich.visits.encoding=veiw"],
            "did you mean `view`?",
        ),
        (["--set", "nothing"], "a setting is KEY=VALUE"),
    ] {
        place.fails(&["run", "job.toml", args[0], args[1]], 2, &[words]);
    }
}

#[test]
fn a_circle_or_an_unset_variable_is_an_error_before_anything_is_done() {
    let place = chain();
    let circle = CHAIN.replace("'countries.csv'", "'out/visits.csv'");
    place.write("circle.toml", &circle);
    place.fails(
        &["run", "circle.toml"],
        2,
        &["circle", "dimension cities needs enrich named needs dimension countries needs enrich visits needs dimension cities"],
    );
    place.write(
        "unset.toml",
        &CHAIN.replace("${OUT:-out}", "${DARNER_TEST_UNSET}"),
    );
    place.fails(
        &["run", "unset.toml"],
        2,
        &["unset.toml: line 15:", "DARNER_TEST_UNSET"],
    );
    assert!(!place.path("store").exists() && !place.path("out").exists());
}

#[test]
fn check_tells_what_would_be_done_and_does_nothing() {
    let place = chain();
    let before = place.names();
    let run = place.ok(&["check", "job.toml"]);
    for words in [
        "load    countries  the table is not there yet",
        "from countries.csv",
        "2 columns: code Utf8 key, name Utf8",
        "about 2 rows, about ",
        "enrich  named      countries is to be loaded before",
        "left join countries on country = code: + country_name",
        "load    cities     its files are made by a step before",
        "enrich  visits     cities is to be loaded before",
        "to out/visits.csv",
        "3 columns: visit Int64, city Utf8, country_name Utf8",
        "ask     count",
    ] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    assert_eq!(place.names(), before);
    place.ok(&["run", "job.toml"]);
    let run = place.ok(&["check", "job.toml", "--json"]);
    assert_eq!(
        run.stdout.matches("\"action\": \"skip\"").count(),
        4,
        "{}",
        run.stdout
    );
    place.write("countries.csv", "code,name\nfr,France\nit,Italia\n");
    let run = place.ok(&[
        "check",
        "job.toml",
        "--only",
        "countries",
        "--only",
        "named",
    ]);
    for words in [
        "load    countries  the file has changed",
        "enrich  named      countries is to be loaded before",
    ] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
}

#[test]
fn check_finds_what_a_run_would_fail_on() {
    let place = chain();
    for (from, to, code, words) in [
        ("key = 'code'", "key = 'cod'", 2, "cod"),
        (
            "select country_name",
            "select country_nmae",
            2,
            "country_nmae",
        ),
        (
            "cities on city select",
            "citis on city select",
            3,
            "did you mean `cities`?",
        ),
        ("'visits.csv'", "'visit.csv'", 3, "visit.csv"),
        ("on country = code", "on contry = code", 2, "contry"),
        (
            "select name as country_name",
            "select name as city",
            2,
            "taken",
        ),
        ("/visits.csv'", "/visits.xyz'", 2, "format"),
        (
            "SELECT country_name",
            "SELECT country_nmae",
            2,
            "country_nmae",
        ),
        ("GROUP BY 1", "GRUOP BY 1", 2, "summary count"),
    ] {
        place.write("wrong.toml", &CHAIN.replace(from, to));
        let run = place.run(&["check", "wrong.toml"]);
        assert!(
            run.stderr.contains(words),
            "{to}: {} lacks {words}",
            run.stderr
        );
        assert_eq!(run.code, Some(code), "{to}: {}", run.stderr);
    }
    assert!(!place.path("store").exists());
}

/// A table has the columns that its step says, and dates as its files write them.
#[test]
fn a_dimension_has_the_columns_that_are_asked_for() {
    let place = Place::new();
    place.write("a.csv", "id;since;note\n1;29.11.2026;x\n2;;y\n");
    place.write("f.csv", "id\n1\n");
    let job = "store = 'store'
[dimension.d]
from = 'a.csv'
key = 'key'
delimiter = ';'
types = ['since = date(%d.%m.%Y)']
columns = ['cast(id as int) as key', 'since', 'upper(note) as note']
[enrich.f]
from = 'f.csv'
join = 'd on id=key'
to = 'o.csv'
";
    place.write("job.toml", job);
    let check = place.ok(&["check", "job.toml"]);
    let columns = "3 columns: key Int32 key, since Date32, note Utf8";
    assert!(check.stdout.contains(columns), "{}", check.stdout);
    place.ok(&["run", "job.toml"]);
    let rows = place.ok(&["--store", "store", "scan", "d", "--format", "csv"]);
    assert_eq!(rows.stdout, "key,since,note\n1,2026-11-29,X\n2,,Y\n");
    let rows = std::fs::read_to_string(place.path("o.csv")).unwrap();
    assert_eq!(rows, "id,since,note\n1,2026-11-29,X\n");
    let again = place.ok(&["run", "job.toml"]);
    assert!(again.stderr.contains("d: unchanged"), "{}", again.stderr);
    // A value of another format is an error with its line; so is a column that is not there.
    place.write("a.csv", "id;since;note\n1;29.11.2026;x\n2;2026-11-29;y\n");
    let words = ["a.csv", "line 3", "%d.%m.%Y", "2026-11-29"];
    place.fails(&["run", "job.toml"], 1, &words);
    place.write("job.toml", &job.replace("'since',", "'sinse',"));
    place.fails(&["run", "job.toml"], 2, &["sinse"]);
}

/// A job that is run from elsewhere, with a check of a dimension and one of an output.
const CHECKED: &str = r#"
store = 'store'
[dimension.d]
from = 'd.csv'
key = 'k'
[enrich.e]
from = 'f.csv'
join = 'd on k'
to = 'out/e.csv'
[check.names]
title = 'every key has a name'
query = 'SELECT k FROM d WHERE name IS NULL'
[check.matched]
query = "SELECT k FROM 'out/e.csv' WHERE name IS NULL ORDER BY k"
[summary.s]
query = "SELECT count(*) AS n FROM 'out/*.csv'"
[view.v]
query = "SELECT name, count(*) AS n FROM 'out/e.csv' GROUP BY name"
"#;

#[test]
fn a_check_stops_the_job_before_others_use_what_is_wrong() {
    let place = Place::new();
    std::fs::create_dir(place.path("jobs")).unwrap();
    let with_checks = |query: &str| {
        let job = CHECKED.replace("SELECT k FROM d", query);
        place.write("jobs/job.toml", &job);
    };
    with_checks("SELECT k FROM d");
    place.write("jobs/d.csv", "k,name\n1,one\n2,two\n");
    place.write("jobs/f.csv", "k\n1\n2\n1\n");
    // Nothing is there yet, and what will be there can be asked about.
    let check = place.ok(&["check", "jobs/job.toml"]);
    assert!(check.stdout.contains("check   names\n"), "{}", check.stdout);
    let run = ["run", "jobs/job.toml"];
    let first = place.ok(&run);
    for words in ["names: every key has a name\n", "matched: checked\n"] {
        assert!(
            first.stderr.contains(words),
            "{} lacks {words}",
            first.stderr
        );
    }
    assert!(first.stdout.contains("| 3 |"), "{}", first.stdout);

    // The enrichment would take it.
    place.write("jobs/d.csv", "k,name\n1,one\n2,\n3,three\n");
    let output = read(&place, "jobs/out/e.csv");
    let stopped = place.run(&run);
    assert_eq!(stopped.code, Some(4), "{}", stopped.stderr);
    let words = "check names: not true that every key has a name: 1 row found, there must be none";
    assert!(stopped.stderr.contains(words), "{}", stopped.stderr);
    assert!(stopped.stdout.contains("| 2 |"), "{}", stopped.stdout);
    assert_eq!(read(&place, "jobs/out/e.csv"), output);

    // An output is there when its own check fails: what comes after it is not.
    place.write("jobs/d.csv", "k,name\n1,one\n2,two\n");
    let facts: String = (10..22).map(|k| format!("{k}\n")).collect();
    place.write("jobs/f.csv", &format!("k\n{facts}"));
    let stopped = place.run(&run);
    assert_eq!(stopped.code, Some(4), "{}", stopped.stderr);
    let words = "check matched: the first 10 of 12 rows are shown, there must be none";
    assert!(stopped.stderr.contains(words), "{}", stopped.stderr);
    assert!(!stopped.stdout.contains("| n "), "{}", stopped.stdout);
    assert_eq!(stopped.stdout.matches("\n| 1").count(), 10);
    let again = place.run(&["run", "jobs/job.toml", "--only", "check.matched"]);
    assert_eq!(again.code, Some(4), "{}", again.stderr);
    place.ok(&["run", "jobs/job.toml", "--only", "names"]);

    with_checks("SELECT kk FROM d");
    for command in ["check", "run"] {
        let run = place.run(&[command, "jobs/job.toml"]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        for words in ["check names: ", "kk"] {
            assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
        }
    }
    with_checks("DELETE FROM d");
    place.fails(&run, 2, &["check names: ", "SELECT"]);
}
