//! Materialized views on the command line, and what `kill -9` leaves of a refresh.

use std::process::Stdio;

use crate::place::Place;

const QUERY: &str =
    "SELECT carrier, count(*) AS flights, sum(delay) AS delay FROM 'in/*.csv' GROUP BY carrier";

fn place() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("in")).unwrap();
    place.write("in/1.csv", "carrier,delay\nUA,1\nUA,2\nDL,5\n");
    place
}

/// The rows of a view, sorted, as CSV without a header.
#[track_caller]
fn rows(place: &Place, from: &str) -> String {
    let query = format!("SELECT * FROM {from} ORDER BY 1");
    let run = place.ok(&["sql", &query, "--format", "csv"]);
    run.stdout.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_view_is_made_refreshed_read_and_dropped() {
    let place = place();
    let run = place.ok(&["view", "create", "delays", QUERY]);
    assert!(
        run.stderr.contains("delays: created, 1 file, 2 groups"),
        "{}",
        run.stderr
    );
    assert_eq!(rows(&place, "delays"), "DL,1,5\nUA,2,3\n");
    place.write("in/2.csv", "carrier,delay\nUA,10\nAA,\n");
    let run = place.ok(&["view", "refresh", "delays", "--json"]);
    assert!(
        run.stdout
            .contains(r#""done":"merged","files":1,"groups":2"#),
        "{}",
        run.stdout
    );
    assert_eq!(rows(&place, "delays"), "AA,1,\nDL,1,5\nUA,3,13\n");
    let run = place.ok(&["view", "refresh", "delays"]);
    assert!(run.stderr.contains("up to date"), "{}", run.stderr);
    let run = place.ok(&["get", "delays", "UA", "--format", "csv"]);
    assert_eq!(run.stdout, "carrier,flights,delay\nUA,3,13\n");
    let run = place.run(&["get", "delays", "XX"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let run = place.ok(&[
        "scan", "delays", "--select", "flights", "--limit", "1", "--format", "csv",
    ]);
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    for args in [
        &["view", "show", "delays"][..],
        &["info", "delays"],
        &["view", "explain", "delays"],
    ] {
        let run = place.ok(args);
        assert!(
            run.stdout.contains("incremental") && run.stdout.contains("in/*.csv"),
            "{}",
            run.stdout
        );
    }
    for args in [
        &["view", "list"][..],
        &["tables"],
        &["history", "delays"],
        &["sql", "\\d"],
    ] {
        if args[0] != "sql" {
            assert!(!place.ok(args).stdout.is_empty(), "{args:?}");
        }
    }
    place.ok(&["view", "verify", "delays"]);
    place.ok(&["view", "drop", "delays"]);
    assert_eq!(place.run(&["view", "show", "delays"]).code, Some(3));
}

#[test]
fn wrong_use_of_views_is_told() {
    let place = place();
    place.ok(&["view", "create", "v", QUERY]);
    place.write("keys.csv", "carrier\nUA\n");
    for (args, code, word) in [
        (&["view", "create", "v", QUERY][..], 1, "exists"),
        (&["view", "create", "w", "DROP TABLE v"], 2, "query"),
        (
            &["view", "create", "w", "SELECT * FROM 'none/*.csv'"],
            3,
            "none/*.csv",
        ),
        (
            &["view", "create", "w", "SELECT * FROM nowhere"],
            3,
            "nowhere",
        ),
        (&["view", "refresh", "w"], 3, "views are `v`"),
        (
            &["view", "refresh", "v", "x.csv", "--rebuild"],
            2,
            "--rebuild",
        ),
        (&["view", "refresh", "v", "none.csv"], 3, "none.csv"),
        (&["load", "v", "keys.csv", "--key", "carrier"], 2, "view"),
        (
            &[
                "load", "v", "keys.csv", "--key", "carrier", "--mode", "replace",
            ],
            2,
            "view",
        ),
        (&["delete", "v", "UA"], 2, "view"),
        (&["drop", "v"], 2, "view drop"),
        (&["get", "v", "UA", "--as-of", "1"], 2, "as-of"),
        (&["changes", "v", "--since", "0"], 2, "view"),
    ] {
        let run = place.run(args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{args:?}: {}", run.stderr);
        assert_eq!(rows(&place, "v"), "DL,1,5\nUA,2,3\n");
    }
    place.write("in/2.csv", "carrier,delay\nUA,late\n");
    let run = place.run(&["view", "refresh", "v"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("in/2.csv") && run.stderr.contains("late"),
        "{}",
        run.stderr
    );
    std::fs::remove_file(place.path("in/2.csv")).unwrap();
    place.write("in/1.csv", "carrier,delay\nUA,1\n");
    let run = place.run(&["view", "refresh", "v"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("in/1.csv") && run.stderr.contains("--rebuild"),
        "{}",
        run.stderr
    );
    let run = place.ok(&["view", "refresh", "v", "--rebuild"]);
    assert!(run.stderr.contains("rebuilt"), "{}", run.stderr);
    assert_eq!(rows(&place, "v"), "UA,1,1\n");
}

#[test]
fn facts_are_enriched_with_a_view() {
    let place = place();
    place.write("in/2.csv", "carrier,delay\n,7\n");
    place.ok(&["view", "create", "delays", QUERY]);
    // One that is computed anew each time, with a string beside the key.
    let query = "SELECT DISTINCT carrier AS code, upper(carrier) || '!' AS name FROM 'in/*.csv'";
    place.ok(&["view", "create", "names", query]);
    place.write("facts.csv", "id,carrier\n1,UA\n2,XX\n3,\n4,DL\n");
    let enrich = |joins: &[&str], output: &str| {
        let mut args = vec!["enrich", "facts.csv"];
        for join in joins {
            args.extend(["--with", join]);
        }
        args.extend(["-o", output]);
        place.run(&args)
    };
    let joins = ["delays on carrier", "names on carrier=code select name"];
    let run = enrich(&joins, "out.csv");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let expected = "id,carrier,flights,delay,name\n1,UA,2,3,UA!\n2,XX,,,\n3,,,,\n4,DL,1,5,DL!\n";
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("out.csv"), expected);
    // Strings of a view are what strings of a table are.
    for output in ["out.parquet", "out.arrow"] {
        let run = enrich(&joins, output);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let query = format!("SELECT * FROM '{output}' ORDER BY id");
        let run = place.ok(&["sql", &query, "--format", "csv"]);
        assert_eq!(run.stdout, expected);
    }
    // The rows of a view as it is now.
    place.write("in/3.csv", "carrier,delay\nXX,9\n");
    place.ok(&["view", "refresh", "delays"]);
    enrich(&["inner delays on carrier select flights"], "out.csv");
    assert_eq!(
        read("out.csv"),
        "id,carrier,flights\n1,UA,2\n2,XX,1\n4,DL,1\n"
    );
    place.ok(&[
        "view",
        "create",
        "pairs",
        "SELECT carrier, delay, count(*) AS n FROM 'in/*.csv' GROUP BY carrier, delay",
    ]);
    for (join, words) in [
        ("pairs on carrier", &["pairs", "carrier", "GROUP BY"][..]),
        ("delays on id", &["delays", "`id`", "on id=COLUMN"]),
        (
            "delays on carrier=carier",
            &["delays", "`carier`", "carrier"],
        ),
        ("delays on carrier select flight", &["flight", "flights"]),
    ] {
        let run = enrich(&[join], "never.csv");
        assert!(matches!(run.code, Some(2 | 3)), "{join}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{join}: {}", run.stderr);
        }
        assert!(!place.path("never.csv").exists());
    }
    let args = [
        "enrich",
        "facts.csv",
        "--with",
        "delays on carrier",
        "--as-of",
        "1",
        "-o",
        "never.csv",
    ];
    let run = place.run(&args);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("--as-of"), "{}", run.stderr);
}

#[test]
fn a_view_found_to_differ_says_where() {
    let place = place();
    place.ok(&["view", "create", "v", QUERY]);
    // Of the same length, time and end as before: only to read it all would tell.
    let path = place.path("in/1.csv");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, "carrier,delay\nUA,1\nUA,2\nDL,6\n").unwrap();
    let file = std::fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    let run = place.run(&["view", "verify", "v"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stdout.contains("stored=`5` computed=`6`"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_refresh_that_is_killed_counts_each_file_once() {
    let place = place();
    place.ok(&["view", "create", "v", QUERY]);
    let mut seed = 1_u64;
    let mut num_killed = 0;
    for round in 2..14 {
        let lines: String = (0..400)
            .map(|i| format!("{},{i}\n", ["UA", "DL", "AA", "B6"][i % 4]))
            .collect();
        place.write(
            &format!("in/{round}.csv"),
            &format!("carrier,delay\n{lines}"),
        );
        let mut child = place
            .command()
            .args(["view", "refresh", "v"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // A look takes some microseconds; a refresh, some ten thousand of them.
        let looks = (seed >> 33) % 20_000;
        let mut has_ended = false;
        for _ in 0..looks {
            has_ended |= child.try_wait().unwrap().is_some();
        }
        if !has_ended {
            child.kill().unwrap();
            child.wait().unwrap();
            num_killed += 1;
        }
        place.ok(&["view", "refresh", "v"]);
        let query = format!(
            "({})",
            QUERY.replace(
                "'in/*.csv'",
                &format!("'{}'", place.path("in/*.csv").display())
            )
        );
        assert_eq!(rows(&place, "v"), rows(&place, &query), "seed={seed}");
    }
    assert!(num_killed > 0);
}
