//! `darner sql`: statements from the command line and from standard input, files in FROM, outputs, what is allowed.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use darner_store::{Store, StoreOptions};

use crate::place::{Place, Run};

const AIRPORTS: &str = "faa,name,alt\nJFK,Kennedy,13\nLGA,Guardia,22\nSJU,,\n";

fn place() -> Place {
    let place = Place::new();
    place.write("airports.csv", AIRPORTS);
    place.write("flights.csv", "flight,dest\n1,JFK\n2,BQN\n3,SJU\n");
    place.ok(&["load", "airports", "airports.csv", "--key", "faa"]);
    place
}

/// Runs the program with statements in its standard input.
fn piped(place: &Place, args: &[&str], statements: &str) -> Run {
    let mut child = place
        .command()
        // No place for a prompt's history.
        .env_remove("XDG_STATE_HOME")
        .env_remove("HOME")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(statements.as_bytes()).unwrap();
    drop(stdin);
    Run::of(child.wait_with_output().unwrap())
}

/// The rows of a query, as CSV without its header.
#[track_caller]
fn rows(place: &Place, query: &str) -> String {
    let run = place.ok(&["sql", query, "--format", "csv"]);
    let (_, rows) = run.stdout.split_once('\n').unwrap();
    rows.to_owned()
}

#[test]
fn statements_run_in_order_and_share_a_session() {
    let place = place();
    let script = " -- first; a view\nCREATE VIEW low AS SELECT * FROM airports WHERE alt < 20;\n\
                  SELECT faa FROM low;\n\nSELECT ';' AS semicolon;;";
    for run in [
        place.run(&["sql", script, "--format", "csv"]),
        piped(&place, &["sql", "--format", "csv"], script),
        piped(&place, &["sql", "-", "--format", "csv"], script),
    ] {
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(run.stdout, "faa\nJFK\nsemicolon\n;\n");
        assert_eq!(run.stderr, "");
    }
    // The first that fails ends it, and its place is told.
    let script = "SELECT 1 AS a;\nSELECT *\nFROM nowhere;\nSELECT 2";
    let run = place.run(&["sql", script, "--format", "csv"]);
    assert_eq!(run.code, Some(3));
    assert_eq!(run.stdout, "a\n1\n");
    assert!(run.stderr.contains("line 2"), "{}", run.stderr);
    // One that cannot be read lets none run.
    let run = place.run(&["sql", "SELECT 1;\nSELEC 2", "--format", "csv"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.contains("line 2"), "{}", run.stderr);
    place.fails(&["sql", " -- nothing"], 2, &["no statement"]);
    place.fails(&["sql", "SELECT 'open"], 2, &["Unterminated"]);
}

#[test]
fn missing_names_are_told_with_the_nearest() {
    let place = place();
    place.fails(
        &["sql", "SELECT * FROM airprts"],
        3,
        &["airprts", "airports"],
    );
    place.fails(&["sql", "SELECT fa FROM airports"], 2, &["faa"]);
    place.fails(
        &["sql", "SELECT * FROM 'none.parquet'"],
        3,
        &["none.parquet"],
    );
    place.fails(&["sql", "SELECT * FROM 'none/*.csv'"], 3, &["none/*.csv"]);
    place.fails(&["sql", "SELECT * FROM flights.csv"], 3, &["'flights.csv'"]);
    place.fails(&["sql", "SELECT * FROM nowhere.csv"], 3, &["nowhere.csv"]);
    place.fails(
        &["--store", "elsewhere", "sql", "SELECT * FROM airports"],
        3,
        &["`airports`", "no store", "elsewhere"],
    );
    place.fails(&["sql", "SELECT * FROM 'flights.xyz'"], 3, &["flights.xyz"]);
    place.write("flights.xyz", "");
    place.fails(
        &["sql", "SELECT * FROM 'flights.xyz'"],
        2,
        &["flights.xyz", ".csv"],
    );
    place.fails(
        &["sql", "SELECT * FROM 'ftp://host/flights.csv'"],
        2,
        &["ftp://host", "this machine"],
    );
}

#[test]
fn files_are_tables_under_every_name_they_may_have() {
    let place = Place::new();
    let dir = |name: &str| std::fs::create_dir_all(place.path(name)).unwrap();
    dir("in/more");
    dir("odd [1]");
    for (name, n) in [
        ("in/a.csv", 1),
        ("in/b.csv", 2),
        ("in/more/c.csv", 4),
        ("in/.hidden.csv", 100),
        ("odd [1]/x y.csv", 8),
        ("odd [1]/100% #é?*.csv", 16),
        ("odd [1]/[ab].csv", 32),
        ("it's.csv", 64),
        ("UPPER.CSV", 128),
        ("a.csv.old.csv", 256),
    ] {
        place.write(name, &format!("n\n{n}\n"));
    }
    let sum = |from: &str| {
        let from = from.replace('\'', "''");
        rows(&place, &format!("SELECT sum(n) FROM '{from}'"))
    };
    let absolute = place.path("in/a.csv").to_str().unwrap().to_owned();
    for (from, expected) in [
        ("in/a.csv", 1),
        ("./in/../in/a.csv", 1),
        (&absolute, 1),
        (&format!("file://{absolute}"), 1),
        ("in/*.csv", 3),
        ("in/[ab].csv", 3),
        ("in/?.csv", 3),
        ("in/**/*.csv", 7),
        ("in", 3),
        ("in/", 3),
        ("odd [1]/x y.csv", 8),
        ("odd [1]/100% #é?*.csv", 16),
        ("odd [1]/[ab].csv", 32),
        ("odd [1]", 56),
        ("it's.csv", 64),
        ("UPPER.CSV", 128),
        ("a.csv.old.csv", 256),
    ] {
        assert_eq!(sum(from), format!("{expected}\n"), "{from}");
    }
    // Formats and compressions by their names; columns by theirs.
    for name in [
        "a.parquet",
        "a.arrow",
        "a.arrows",
        "a.csv.gz",
        "a.tsv",
        "a.ndjson.zst",
        "a.tsv.gz",
    ] {
        let query = "SELECT n, n || ',' AS t FROM 'in/*.csv' ORDER BY n";
        place.ok(&["sql", query, "-o", name]);
        let query = format!("SELECT sum(n), max(t) FROM '{name}'");
        assert_eq!(rows(&place, &query), "3,\"2,\"\n", "{name}");
    }
    place.write("in/z.csv", "");
    assert_eq!(sum("in/*.csv"), "3\n");
    // By their places the values would come into the wrong columns.
    for text in ["m\n5\n", "n,m\n5,6\n"] {
        place.write("in/z.csv", text);
        place.fails(
            &["sql", "SELECT * FROM 'in/*.csv'"],
            2,
            &["same columns", "in/a.csv", "in/z.csv"],
        );
    }
    place.write("in/z.csv", "n\nmany\n");
    assert_eq!(rows(&place, "SELECT max(n) FROM 'in/*.csv'"), "many\n");
    for (name, row) in [("x", r#"{"a":1}"#), ("y", r#"{"b":"t","a":2}"#)] {
        place.write(&format!("{name}.ndjson"), &format!("{row}\n"));
    }
    let query = "SELECT a, b FROM '?.ndjson' ORDER BY a";
    assert_eq!(rows(&place, query), "1,\n2,t\n");
    place.fails(
        &["sql", "SELECT * FROM '*.[cp]*'"],
        2,
        &["one format", "a.csv.gz"],
    );
    // Directories that say the value of a column.
    for (year, n) in [(2025, 1), (2026, 2)] {
        dir(&format!("parts/year={year}"));
        place.write(&format!("parts/year={year}/a.csv"), &format!("n\n{n}\n"));
    }
    let query = "SELECT year, n FROM 'parts' ORDER BY year";
    assert_eq!(rows(&place, query), "2025,1\n2026,2\n");
    dir("empty");
    place.fails(&["sql", "SELECT * FROM 'empty'"], 3, &["empty"]);
}

#[test]
fn a_query_takes_no_lock_and_a_statement_that_writes_says_who_has_it() {
    let place = place();
    let store = Store::open(place.path("darner-store"), StoreOptions::default()).unwrap();
    assert_eq!(rows(&place, "SELECT count(*) FROM airports"), "3\n");
    let pid = std::process::id().to_string();
    for statement in [
        "INSERT INTO airports VALUES ('BQN', 'Aguadilla', 237)",
        "DELETE FROM airports WHERE faa = 'JFK'",
        "DROP TABLE airports",
        "CREATE TABLE t (a INT, PRIMARY KEY (a))",
    ] {
        place.fails(&["sql", statement], 1, &["pid", &pid]);
    }
    drop(store);
    assert_eq!(rows(&place, "SELECT count(*) FROM airports"), "3\n");
}

#[test]
fn a_store_is_made_for_a_table_and_for_nothing_else() {
    let place = Place::new();
    place.ok(&["sql", "SELECT 1"]);
    place.ok(&["sql", "DROP TABLE IF EXISTS t"]);
    place.fails(&["sql", "INSERT INTO t VALUES (1)"], 3, &["`t`"]);
    place.fails(&["sql", "DROP TABLE t"], 3, &["`t`"]);
    let create = "CREATE TABLE t (a INT NOT NULL, PRIMARY KEY (a))";
    place.fails(&["sql", "--read-only", create], 2, &["--read-only"]);
    assert!(place.names().is_empty());
    std::fs::create_dir(place.path("darner-store")).unwrap();
    place.ok(&["sql", "SELECT 1"]);
    place.ok(&["sql", create]);
    assert_eq!(place.names(), ["darner-store"]);
    place.write("file", "");
    place.fails(&["--store", "file", "sql", "SELECT 1"], 2, &["file"]);
}

#[test]
fn the_prompt_goes_on_until_it_is_told_to_end() {
    let place = place();
    let prompt = |args: &[&str], typed: &str| {
        let args = [&["sql", "--interactive"][..], args].concat();
        let run = piped(&place, &args, typed);
        assert_eq!(run.code, Some(0), "{typed}: {}", run.stderr);
        run
    };
    // Statements over several lines; errors that end nothing; no statement after the end.
    let typed = "\\format csv\nSELECT faa\n FROM airports\n WHERE alt > 20; SELECT 1 AS a;\n\
                 SELECT nothing;\n\n\\timing off\nSELECT 'a;\nb' AS t;\n\\q\nSELECT 2;\n";
    let run = prompt(&[], typed);
    assert_eq!(run.stdout, "faa\nLGA\na\n1\nt\n\"a;\nb\"\n");
    assert!(run.stderr.contains("1 row in 0."), "{}", run.stderr);
    assert!(run.stderr.ends_with("1 row\n"), "{}", run.stderr);
    assert!(run.stderr.contains("nothing"), "{}", run.stderr);
    let run = prompt(&["--quiet"], "SELECT 1 AS a;");
    assert!(run.stdout.contains("| 1 |"), "{}", run.stdout);
    assert_eq!(run.stderr, "");
    // What is there, and what the session adds.
    let run = prompt(
        &[],
        "CREATE VIEW v AS SELECT 1 AS one;\n\\d\n\\d airports;\n\\d v\n\\d w\n\\nonsense\nquit\n",
    );
    for words in ["| airports ", "| of this session ", "| alt ", "| one "] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    for words in ["3 rows, key faa, version 1", "`w`", "nonsense", "\\?"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    // A file takes the rows of one statement, not those of the next.
    place.write("some.sql", "SELECT 1 AS a;\nSELECT 2 AS b");
    let typed = "\\o out.csv\n\\i some.sql\n\\i none.sql\n";
    let run = prompt(&["--allow-files"], typed);
    for words in ["--allow-writes", "none.sql"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    let run = prompt(&[], typed);
    assert!(run.stderr.contains("--allow-files"), "{}", run.stderr);
    assert_eq!(run.stdout, "");
    assert!(!place.path("out.csv").exists());
    let run = prompt(&["--allow-files", "--allow-writes"], typed);
    assert_eq!(
        std::fs::read_to_string(place.path("out.csv")).unwrap(),
        "a\n1\n"
    );
    assert!(run.stdout.contains("| b |"), "{}", run.stdout);
    assert!(run.stderr.contains("none.sql"), "{}", run.stderr);
    // A pipe has no more rights because it calls itself interactive.
    let run = prompt(&[], "DROP TABLE airports;\nSELECT * FROM 'flights.csv';\n");
    for words in ["--allow-writes", "--allow-files"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    assert_eq!(rows(&place, "SELECT count(*) FROM airports"), "3\n");
}

#[test]
fn the_prompt_keeps_its_history_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;

    let place = place();
    for n in 1..=2 {
        let mut command = place.command();
        command
            .args(["sql", "--interactive"])
            .env("XDG_STATE_HOME", place.path("state"));
        place.write("typed", &format!("SELECT\n{n};\n SELECT 'secret';\n"));
        let typed = std::fs::File::open(place.path("typed")).unwrap();
        let run = Run::of(command.stdin(typed).output().unwrap());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let file = place.path("state/darner/sql_history");
    let history = std::fs::read_to_string(&file).unwrap();
    for n in ["1;", "2;"] {
        assert!(history.contains(n), "{history}");
    }
    assert!(!history.contains("secret"), "{history}");
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Where no history can be kept there is a prompt all the same.
    let mut command = place.command();
    command
        .args(["sql", "--interactive"])
        .env("XDG_STATE_HOME", place.path("airports.csv"));
    let typed = std::fs::File::open(place.path("typed")).unwrap();
    let run = Run::of(command.stdin(typed).output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("no history"), "{}", run.stderr);
    assert!(run.stdout.contains("secret"), "{}", run.stdout);
}

#[test]
fn standard_input_may_only_read_tables_unless_told_otherwise() {
    let place = place();
    let before = place.names();
    for (args, statement, word) in [
        (vec![], "DELETE FROM airports", "--allow-writes"),
        (vec![], "COPY airports TO 'out.csv'", "--allow-writes"),
        (
            vec!["--allow-writes"],
            "COPY airports TO 'out.csv'",
            "--allow-files",
        ),
        (
            vec!["--allow-files"],
            "COPY airports TO 'out.csv'",
            "--allow-writes",
        ),
        (vec![], "SELECT * FROM 'flights.csv'", "--allow-files"),
        (
            vec!["--allow-writes"],
            "SELECT * FROM 'flights.csv'",
            "--allow-files",
        ),
        (
            vec![],
            "CREATE EXTERNAL TABLE f STORED AS CSV LOCATION 'flights.csv'",
            "--allow-files",
        ),
        (
            vec![],
            "SET datafusion.runtime.temp_directory = 'tmp'",
            "--allow-files",
        ),
    ] {
        for source in [vec!["sql"], vec!["sql", "-"]] {
            let run = piped(&place, &[source, args.clone()].concat(), statement);
            assert_eq!(run.code, Some(2), "{statement}: {}", run.stderr);
            assert!(run.stderr.contains(word), "{statement}: {}", run.stderr);
            assert_eq!(run.stdout, "");
        }
    }
    let run = piped(&place, &["sql"], "SELECT count(*) FROM airports");
    assert!(run.stdout.contains("| 3 "), "{}", run.stdout);
    let args = ["sql", "--allow-files"];
    let run = piped(&place, &args, "SELECT count(*) FROM 'flights.csv'");
    assert!(run.stdout.contains("| 3 "), "{}", run.stdout);
    // What is typed may do all, unless it is told not to.
    place.fails(
        &["sql", "--no-files", "SELECT * FROM 'flights.csv'"],
        2,
        &["--no-files"],
    );
    place.fails(
        &["sql", "--read-only", "DROP TABLE airports"],
        2,
        &["--read-only"],
    );
    place.fails(
        &["sql", "--read-only", "COPY airports TO 'out.csv'"],
        2,
        &["--read-only"],
    );
    place.fails(
        &["sql", "--read-only", "--allow-writes", "SELECT 1"],
        2,
        &["cannot be used"],
    );
    assert_eq!(place.names(), before);
}

#[test]
fn rows_go_to_files_whole_or_not_at_all() {
    let place = place();
    let query = "SELECT faa, alt FROM airports ORDER BY faa";
    for name in [
        "out.csv",
        "out.parquet",
        "out.arrow",
        "out.ndjson",
        "out.csv.zst",
    ] {
        let run = place.ok(&["sql", query, "-o", name]);
        assert!(run.stderr.contains("3 rows"), "{}", run.stderr);
        let read = format!("SELECT count(*), sum(alt) FROM '{name}'");
        assert_eq!(rows(&place, &read), "3,35\n", "{name}");
    }
    place.ok(&["sql", query, "-o", "out.txt", "--format", "table"]);
    let table = std::fs::read_to_string(place.path("out.txt")).unwrap();
    assert!(table.contains("| JFK | 13  |"), "{table}");
    let before = place.names();
    let kept = std::fs::read_to_string(place.path("out.csv")).unwrap();
    // A query that fails on its way.
    let query = "SELECT 1 / (1000000 - value) FROM generate_series(1, 1000000)";
    place.fails(&["sql", query, "-o", "out.csv"], 1, &["zero"]);
    place.fails(&["sql", query, "-o", "new.csv"], 1, &["zero"]);
    place.fails(
        &["sql", "SELECT 1; SELECT 2", "-o", "new.csv"],
        2,
        &["new.csv", "one statement"],
    );
    place.fails(
        &["sql", "SELECT 1", "-o", "darner-store/x.csv"],
        2,
        &["inside the store"],
    );
    assert_eq!(place.names(), before);
    assert_eq!(
        std::fs::read_to_string(place.path("out.csv")).unwrap(),
        kept
    );
    place.ok(&[
        "sql",
        "CREATE VIEW v AS SELECT 1 AS a; SELECT a FROM v",
        "-o",
        "new.csv",
    ]);
    assert_eq!(
        std::fs::read_to_string(place.path("new.csv")).unwrap(),
        "a\n1\n"
    );
    let run = place.ok(&["--json", "sql", "SELECT 1 AS a"]);
    assert_eq!(run.stdout, "{\"a\":1}\n");
    // Nothing is cut off a long table.
    let run = place.ok(&["sql", "SELECT * FROM generate_series(1, 20000)"]);
    assert_eq!(run.stdout.lines().count(), 20_004);
    place.fails(
        &["sql", "SELECT * FROM generate_series(1, 200000)"],
        1,
        &["too many rows", "csv"],
    );
}

#[test]
fn a_statement_too_deep_is_an_error() {
    let place = Place::new();
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let long = format!("SELECT 1{}", " + 1".repeat(50_000));
    let signs = format!("SELECT {}1", "- ".repeat(5_000));
    for (sql, code, word) in [
        (deep, 1, "levels_max"),
        (long, 1, "terms_max"),
        (signs, 2, "recursion"),
    ] {
        let run = piped(&place, &["sql"], &sql);
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        assert!(run.stderr.contains(word), "{}", run.stderr);
        assert!(run.stderr.len() < 1000, "{}", run.stderr);
    }
    let sum = format!("SELECT 1{} AS s", "+1".repeat(100));
    let run = piped(&place, &["sql", "--format", "csv"], &sum);
    assert_eq!(run.stdout, "s\n101\n", "{}", run.stderr);
}

#[test]
fn a_closed_pipe_ends_a_long_table_quietly() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_darner");
    for format in ["table", "csv", "ndjson"] {
        let script = format!(
            "'{program}' sql 'SELECT * FROM generate_series(1, 90000); SELECT 1' --format {format} | head -n 1"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(place.dir());
        let run = Run::of(shell.output().unwrap());
        assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
        assert_eq!(run.stderr, "", "{format}");
    }
}

#[test]
fn statements_write_and_say_how_many_rows() {
    let place = place();
    let written = |statement: &str| {
        let run = place.ok(&["--json", "sql", statement]);
        assert_eq!(run.stderr, "", "{statement}");
        run.stdout.trim().to_owned()
    };
    assert_eq!(
        written("INSERT INTO airports VALUES ('BOS', 'Logan', 20), ('JFK', 'Idlewild', 13)"),
        r#"{"rows":2}"#
    );
    assert_eq!(
        written("UPDATE airports SET alt = alt + 1 WHERE name IS NOT NULL"),
        r#"{"rows":3}"#
    );
    assert_eq!(
        written("DELETE FROM airports WHERE faa = 'LGA'"),
        r#"{"rows":1}"#
    );
    assert_eq!(
        rows(&place, "SELECT * FROM airports ORDER BY faa"),
        "BOS,Logan,21\nJFK,Idlewild,14\nSJU,,\n"
    );
    // Nothing of a statement that fails is done.
    place.fails(
        &["sql", "INSERT INTO airports (faa) VALUES ('XYZ'), ('XYZ')"],
        1,
        &["duplicate", "XYZ"],
    );
    place.fails(
        &["sql", "DELETE FROM airports WHERE altitude > 3"],
        2,
        &["altitude"],
    );
    place.fails(
        &["sql", "--read-only", "DELETE FROM airports"],
        2,
        &["--read-only"],
    );
    assert_eq!(rows(&place, "SELECT count(*) FROM airports"), "3\n");
    // Several in a script, which see each other, and the store is free afterwards.
    let script = "CREATE TABLE high (PRIMARY KEY (faa)) AS SELECT faa, alt FROM airports WHERE alt > 14; \
                  INSERT INTO high SELECT 'ZRH', 432; \
                  SELECT faa FROM high ORDER BY faa; DROP TABLE high";
    let run = place.ok(&["sql", script, "--format", "csv"]);
    assert_eq!(run.stdout, "faa\nBOS\nZRH\n");
    assert_eq!(run.stderr, "1 row written\n1 row written\n");
    place.fails(&["sql", "SELECT * FROM high"], 3, &["high"]);
    place.ok(&["load", "airports", "airports.csv"]);
    // The past, and lookups in it.
    assert_eq!(
        rows(
            &place,
            "SELECT name FROM darner_at('airports', 1) WHERE faa = 'LGA'"
        ),
        "Guardia\n"
    );
    assert_eq!(
        rows(
            &place,
            "SELECT dest, dim_get('airports', dest, 'alt') FROM 'flights.csv'"
        ),
        "JFK,13\nBQN,\nSJU,\n"
    );
    assert_eq!(
        rows(&place, "SELECT count(*) FROM darner_history('airports')"),
        "5\n"
    );
}
