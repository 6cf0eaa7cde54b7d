use darner_engine::ErrorKind;

use crate::fixture::Fixture;

/// Versions 1 (made), 2 (two rows), 3 (one changed, one new), 4 (one deleted); all of them are kept.
fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE airports (faa TEXT, name TEXT, alt INT, PRIMARY KEY (faa))");
    let mut transaction = fixture.store.begin().unwrap();
    let retention = darner_store::Retention {
        num_versions: 100,
        ..Default::default()
    };
    transaction.set_retention("airports", retention).unwrap();
    transaction.commit().unwrap();
    fixture.count("INSERT INTO airports VALUES ('JFK', 'Kennedy', 13), ('LGA', 'Guardia', 22)");
    fixture.count("INSERT INTO airports VALUES ('JFK', 'Kennedy Intl', 13), ('SJU', 'Juan', 5)");
    fixture.count("DELETE FROM airports WHERE faa = 'LGA'");
    fixture
}

#[test]
fn a_table_is_read_as_of_a_version_or_a_time() {
    let fixture = fixture();
    let first = ["JFK|Kennedy|13", "LGA|Guardia|22"];
    let second = ["JFK|Kennedy Intl|13", "LGA|Guardia|22", "SJU|Juan|5"];
    let at = |as_of: &str| fixture.rows(&format!("SELECT * FROM darner_at('airports', {as_of})"));
    assert_eq!(at("1"), [""; 0]);
    assert_eq!(at("3"), first);
    assert_eq!(at("'3'"), first);
    assert_eq!(at("1 + 3"), second);
    assert_eq!(at("5"), ["JFK|Kennedy Intl|13", "SJU|Juan|5"]);
    let times = fixture
        .rows("SELECT CAST(time AS TEXT) FROM darner_history('airports') WHERE version IN (3, 4)");
    assert_eq!(at(&format!("'{}'", times[0])), first);
    assert_eq!(
        at(&format!("TIMESTAMP '{}'", times[1].trim_end_matches('Z'))),
        second
    );
    assert_eq!(at("now()").len(), 2);
    assert_eq!(
        fixture.rows(
            "SELECT new.faa, old.name FROM airports AS new LEFT JOIN darner_at('darner.public.airports', 3) AS old \
             ON new.faa = old.faa WHERE new.name IS DISTINCT FROM old.name"
        ),
        ["JFK|Kennedy", "SJU|null"]
    );
    // What was cannot be changed, only read.
    fixture.run("CREATE VIEW was AS SELECT * FROM darner_at('airports', 3)");
    assert_eq!(fixture.rows("SELECT * FROM was"), first);
    // But brought back.
    fixture.count("INSERT OVERWRITE airports SELECT * FROM darner_at('airports', 3)");
    assert_eq!(fixture.rows("SELECT * FROM airports"), first);
}

#[test]
fn a_history_says_what_each_commit_did() {
    let fixture = fixture();
    fixture.count("DELETE FROM airports");
    let sql = "SELECT version, kind, rows_added, rows_removed, rows_live, readable FROM darner_history('airports')";
    assert_eq!(
        fixture.rows(sql),
        [
            "1|create|0|0|0|true",
            "3|write|2|0|2|true",
            "4|write|2|1|3|true",
            "5|write|0|1|2|true",
            "6|replace|0|2|0|true",
        ]
    );
    assert_eq!(
        fixture.rows("SELECT max(version) FROM darner_history('airports') WHERE rows_live > 2"),
        ["4"]
    );
    assert_eq!(
        fixture.rows("SELECT count(*) FROM darner_history('airports') WHERE time <= now()"),
        ["5"]
    );
}

#[test]
fn changes_are_rows_and_the_keys_of_deleted_ones() {
    let fixture = fixture();
    let changes =
        |args: &str| fixture.rows(&format!("SELECT * FROM darner_changes('airports', {args})"));
    let third = [
        "delete|LGA|null|null",
        "upsert|JFK|Kennedy Intl|13",
        "upsert|SJU|Juan|5",
    ];
    assert_eq!(changes("3"), third);
    assert_eq!(changes("3, 4"), third[1..]);
    assert_eq!(changes("5"), [""; 0]);
    // Before there was anything nothing can have been deleted.
    assert_eq!(changes("0"), third[1..]);
    assert_eq!(
        fixture
            .rows("SELECT _change, count(*) FROM darner_changes('airports', 3) GROUP BY _change"),
        ["delete|1", "upsert|2"]
    );
    // To take the changes after a version makes the table of that version the newest.
    fixture.run("CREATE TABLE copy (PRIMARY KEY (faa)) AS SELECT * FROM darner_at('airports', 3)");
    fixture.count("DELETE FROM copy WHERE faa IN (SELECT faa FROM darner_changes('airports', 3) WHERE _change = 'delete')");
    fixture.count("INSERT INTO copy SELECT faa, name, alt FROM darner_changes('airports', 3) WHERE _change = 'upsert'");
    assert_eq!(
        fixture.rows("SELECT * FROM copy"),
        fixture.rows("SELECT * FROM airports")
    );
    // After a replacement it is told by comparing.
    fixture.count("INSERT OVERWRITE airports VALUES ('SJU', 'Juan', 6), ('BOS', 'Logan', 20)");
    assert_eq!(
        changes("5"),
        [
            "delete|JFK|null|null",
            "upsert|BOS|Logan|20",
            "upsert|SJU|Juan|6"
        ]
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let fixture = fixture();
    let cases: [(&str, &[&str]); 14] = [
        ("darner_at('airports', 99)", &["still to come", "`99`"]),
        (
            "darner_at('airports', '2999-01-01')",
            &["still to come", "2999"],
        ),
        ("darner_at('airports', 0)", &["made later"]),
        ("darner_at('airports', '2001-01-01 12:00')", &["made later"]),
        (
            "darner_at('airports', 'yesterday')",
            &["darner_at", "2026-11-20"],
        ),
        ("darner_at('airports', -1)", &["wants a version"]),
        ("darner_at('airports', 1.5)", &["wants a version"]),
        ("darner_at('airports', NULL)", &["wants a version"]),
        ("darner_at('airports')", &["wants a version"]),
        ("darner_at('airprts', 1)", &["airprts", "airports"]),
        ("darner_at(1, 1)", &["name of a table"]),
        ("darner_at()", &["darner_at('table'"]),
        (
            "darner_history('airports', 1)",
            &["darner_history('table')"],
        ),
        ("darner_changes('airports', 4, 3)", &["changes begin later"]),
    ];
    for (table, words) in cases {
        fixture.fails(&format!("SELECT * FROM {table}"), words);
    }
    let kind = fixture.fails("SELECT * FROM darner_at('airprts', 1)", &[]);
    assert_eq!(kind, Some(ErrorKind::NotFound));
}
