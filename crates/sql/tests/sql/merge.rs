use std::collections::BTreeMap;

use crate::{
    fixture::Fixture,
    random::{Random, seed},
};

fn fixture() -> Fixture {
    let fixture = Fixture::with("(1, 'one', 10), (2, 'two', 20), (3, NULL, 30), (4, 'four', NULL)");
    fixture.run(
        "CREATE TABLE datafusion.public.s (id BIGINT, name TEXT, k INT) AS VALUES (2, 'zwei', 0), (3, 'drei', 1), (7, 'sieben', 2)",
    );
    fixture
}

#[test]
fn a_merge_does_with_each_row_what_the_first_fitting_clause_says() {
    let fixture = fixture();
    let version = fixture.version();
    let sql = "MERGE INTO t USING datafusion.public.s AS s ON t.id = s.id \
               WHEN MATCHED AND s.k = 0 THEN DELETE \
               WHEN MATCHED THEN UPDATE SET name = s.name, n = t.n + s.k \
               WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, upper(s.name))";
    assert_eq!(fixture.count(sql), 3);
    assert_eq!(fixture.version(), version + 1);
    assert_eq!(
        fixture.rows("SELECT * FROM t"),
        ["1|one|10", "3|drei|31", "4|four|null", "7|SIEBEN|null"]
    );
    let plan = fixture.rows(&format!("EXPLAIN {sql}")).join("\n");
    assert!(plan.contains("StoreSink: merge into t"), "{plan}");
}

#[test]
fn a_merge_can_do_something_with_rows_that_no_source_has() {
    let fixture = fixture();
    let sql = "MERGE INTO t AS a USING (SELECT * FROM datafusion.public.s WHERE id > 2) AS s ON a.id = s.id \
               WHEN NOT MATCHED BY SOURCE AND a.name LIKE 'o%' THEN DELETE \
               WHEN NOT MATCHED BY SOURCE THEN UPDATE SET n = -1 \
               WHEN NOT MATCHED BY TARGET AND s.id < 5 THEN INSERT VALUES (s.id, s.name, s.k)";
    assert_eq!(fixture.count(sql), 3);
    assert_eq!(
        fixture.rows("SELECT * FROM t"),
        ["2|two|-1", "3|null|30", "4|four|-1"]
    );
    // The same with what the store has, and with nothing.
    let sql = "MERGE INTO t USING (SELECT id + 1 AS id FROM t) AS s ON t.id = s.id \
               WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)";
    assert_eq!(fixture.count(sql), 3);
    assert_eq!(fixture.rows("SELECT * FROM t"), ["2|two|-1", "5|null|null"]);
    let sql = "MERGE INTO t USING (SELECT 1 AS id WHERE false) AS s ON t.id = s.id WHEN MATCHED THEN DELETE";
    assert_eq!(fixture.count(sql), 0);
}

#[test]
fn a_merge_that_would_do_two_things_with_a_row_is_refused() {
    let fixture = fixture();
    fixture.fails(
        "MERGE INTO t USING (VALUES (1, 5), (1, 6)) AS s(id, n) ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = s.n",
        &["several rows of USING", "first: 1"],
    );
    fixture.fails(
        "MERGE INTO t USING (VALUES (9, 5), (9, 6)) AS s(id, n) ON t.id = s.id WHEN NOT MATCHED THEN INSERT (id, n) VALUES (s.id, s.n)",
        &["several rows would get one key", "first: 9"],
    );
    fixture.fails(
        "MERGE INTO t USING (VALUES ('zwei')) AS s(name) ON t.name = s.name WHEN NOT MATCHED THEN INSERT (id, name) VALUES (2, s.name)",
        &["the key of another row", "`2`"],
    );
    fixture.fails(
        "MERGE INTO t USING datafusion.public.s AS s ON t.id = s.id WHEN NOT MATCHED THEN INSERT (name) VALUES (s.name)",
        &["a key is null"],
    );
    // Only one of the two fits.
    let sql = "MERGE INTO t USING (VALUES (1, 5), (1, 6)) AS s(id, n) ON t.id = s.id WHEN MATCHED AND s.n > 5 THEN UPDATE SET n = s.n, id = 100";
    assert_eq!(fixture.count(sql), 1);
    assert_eq!(fixture.rows("SELECT * FROM t WHERE n < 10"), ["100|one|6"]);
}

#[test]
fn random_merges_do_what_a_map_does() {
    let seed = seed(3);
    let mut random = Random::new(seed);
    for round in 0..20 {
        let fixture = Fixture::new();
        fixture.run("CREATE TABLE t (id BIGINT, n BIGINT, PRIMARY KEY (id))");
        let mut map: BTreeMap<u64, u64> = (0..random.number(40))
            .map(|_| (random.number(60), random.number(9)))
            .collect();
        let mut source: BTreeMap<u64, u64> = (0..=random.number(40))
            .map(|_| (random.number(60), random.number(9)))
            .collect();
        source.entry(7).or_insert(3);
        let values = |map: &BTreeMap<u64, u64>| -> String {
            let rows: Vec<String> = map.iter().map(|(id, n)| format!("({id}, {n})")).collect();
            rows.join(", ")
        };
        if !map.is_empty() {
            fixture.count(&format!("INSERT INTO t VALUES {}", values(&map)));
        }
        let [low, high] = [random.number(9), random.number(9)];
        let sql = format!(
            "MERGE INTO t USING (VALUES {}) AS s(id, n) ON t.id = s.id \
             WHEN MATCHED AND s.n < {low} THEN DELETE \
             WHEN MATCHED AND t.n > {high} THEN UPDATE SET n = t.n * 10 + s.n \
             WHEN NOT MATCHED AND s.n <> {low} THEN INSERT (n, id) VALUES (s.n, s.id) \
             WHEN NOT MATCHED BY SOURCE AND t.n = {high} THEN UPDATE SET id = t.id + 1000",
            values(&source)
        );
        let mut num_changed = 0;
        let before = map.clone();
        for (id, n) in &source {
            match before.get(id) {
                Some(_) if *n < low => drop(map.remove(id)),
                Some(old) if *old > high => drop(map.insert(*id, old * 10 + n)),
                None if *n != low => drop(map.insert(*id, *n)),
                _ => continue,
            }
            num_changed += 1;
        }
        for (id, n) in before
            .iter()
            .filter(|(id, n)| !source.contains_key(id) && **n == high)
        {
            map.remove(id);
            map.insert(id + 1000, *n);
            num_changed += 1;
        }
        assert_eq!(
            fixture.count(&sql),
            num_changed,
            "seed={seed} round={round} {sql}"
        );
        let mut expected: Vec<String> = map.iter().map(|(id, n)| format!("{id}|{n}")).collect();
        expected.sort_unstable();
        assert_eq!(
            fixture.rows("SELECT * FROM t"),
            expected,
            "seed={seed} round={round} {sql}"
        );
    }
}
