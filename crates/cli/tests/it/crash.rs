//! `kill -9` and signals at random moments: what is left is whole.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use arrow_array::{RecordBatch, cast::AsArray, types::Int64Type};
use darner_engine::{SourceOptions, open};
use darner_store::Store;

use crate::place::Place;

const NUM_KILLS: u64 = 20;

/// A number below `bound`, from a seed (`SplitMix64`).
fn random(seed: u64, bound: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 27)) % bound
}

/// Waits for a random number of looks at the child, at most as long as it needs, then kills it. Returns whether it
/// had ended well before.
fn kill_somewhere(mut child: Child, seed: u64, looks_max: u64) -> bool {
    for _ in 0..random(seed, looks_max) {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "seed {seed}");
            return true;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    false
}

/// How many looks a child takes from start to end.
fn count_looks(mut child: Child) -> u64 {
    let mut looks = 0;
    while child.try_wait().unwrap().is_none() {
        looks += 1;
    }
    looks
}

fn quiet(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The one round that all rows of the table come from, and their number.
fn round(store: &Store) -> (i64, usize) {
    let mut rounds = Vec::new();
    let mut num_rows = 0;
    for rows in store.table("t").unwrap().rows(None).unwrap() {
        let rows = rows.unwrap();
        let column = rows
            .column_by_name("round")
            .unwrap()
            .as_primitive::<Int64Type>()
            .clone();
        rounds.extend(column.values().iter().copied());
        num_rows += rows.num_rows();
    }
    rounds.dedup();
    assert_eq!(rounds.len(), 1, "rows of several loads are mixed");
    (rounds[0], num_rows)
}

fn load_and_kill(num_rows: usize) {
    let place = Place::new();
    let write = |round: u64| {
        let rows: String = (0..num_rows)
            .map(|i| format!("{i},{round},some text for row {i}\n"))
            .collect();
        place.write(&format!("{round}.csv"), &format!("id,round,text\n{rows}"));
    };
    let load = |round: u64| {
        let file = format!("{round}.csv");
        quiet(
            place
                .command()
                .args(["load", "t", &file, "--key", "id", "--mode", "replace"]),
        )
    };
    write(0);
    let looks_max = count_looks(load(0));
    let mut acknowledged = 0;
    let mut num_killed = 0;
    for round_number in 1..=NUM_KILLS {
        write(round_number);
        let ended = kill_somewhere(load(round_number), round_number, looks_max * 12 / 10);
        num_killed += u64::from(!ended);
        // A reader and a writer both find it whole.
        let found = round(&Store::open_read_only(place.path("darner-store")).unwrap());
        let store = Store::open(
            place.path("darner-store"),
            darner_store::StoreOptions::default(),
        );
        assert_eq!(round(&store.unwrap()), found);
        assert_eq!(found.1, num_rows);
        let found = u64::try_from(found.0).unwrap();
        if ended {
            acknowledged = round_number;
        }
        // What was killed is there whole or not at all; what had returned is there.
        assert!(
            found == acknowledged || found == round_number,
            "{found} after {round_number}"
        );
        acknowledged = found;
        std::fs::remove_file(place.path(&format!("{round_number}.csv"))).unwrap();
    }
    assert!(
        num_killed > NUM_KILLS / 4,
        "only {num_killed} loads were killed"
    );
    assert_eq!(place.names(), ["0.csv", "darner-store"]);
}

#[test]
fn a_killed_small_load_is_there_whole_or_not_at_all() {
    load_and_kill(3_000);
}

#[test]
fn a_killed_large_load_is_there_whole_or_not_at_all() {
    load_and_kill(400_000);
}

fn num_rows(path: &Path) -> usize {
    let mut source = open(path, &SourceOptions::default()).unwrap();
    let mut num_rows = 0;
    while let Some(piece) = source.next_piece().unwrap() {
        num_rows += piece
            .decode()
            .unwrap()
            .iter()
            .map(RecordBatch::num_rows)
            .sum::<usize>();
    }
    num_rows
}

#[test]
fn a_killed_enrichment_leaves_no_part_of_an_output() {
    let place = Place::new();
    let rows: String = (0..100_000).map(|i| format!("{i},text {i}\n")).collect();
    place.write("facts.csv", &format!("id,text\n{rows}"));
    place.ok(&["load", "d", "facts.csv", "--key", "id"]);
    for format in ["parquet", "arrow", "csv"] {
        let output = format!("out.{format}");
        let enrich = || {
            quiet(place.command().args([
                "enrich",
                "facts.csv",
                "--with",
                "d on id select text as more",
                "-o",
                &output,
            ]))
        };
        let looks_max = count_looks(enrich());
        assert_eq!(num_rows(&place.path(&output)), 100_000);
        std::fs::remove_file(place.path(&output)).unwrap();
        let mut was_there = false;
        for seed in 0..NUM_KILLS {
            was_there |= kill_somewhere(enrich(), seed, looks_max);
            assert!(!was_there || place.path(&output).exists());
            if place.path(&output).exists() {
                assert_eq!(num_rows(&place.path(&output)), 100_000);
                was_there = true;
                if seed % 2 == 0 {
                    std::fs::remove_file(place.path(&output)).unwrap();
                    was_there = false;
                }
            }
        }
        let _ = std::fs::remove_file(place.path(&output));
        assert_eq!(place.names(), ["darner-store", "facts.csv"]);
    }
}

#[test]
fn an_interrupt_is_a_clean_stop() {
    let place = Place::new();
    let rows: String = (0..100_000).map(|i| format!("{i},text {i}\n")).collect();
    place.write("facts.csv", &format!("id,text\n{rows}"));
    place.ok(&["load", "d", "facts.csv", "--key", "id"]);
    for signal in ["INT", "TERM"] {
        // The reader of the pipe never comes, so the program is at work when the signal does.
        let program = env!("CARGO_BIN_EXE_darner");
        let script = format!(
            "mkfifo in.{signal}; '{program}' enrich in.{signal} --input-format csv --with 'd on id' -o out.csv & \
             pid=$!; exec 3>in.{signal}; cat facts.csv >&3; kill -{signal} $pid; exec 3>&-; wait $pid"
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(place.dir())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{signal}: {stderr}");
        assert!(stderr.contains("interrupted"), "{signal}: {stderr}");
        std::fs::remove_file(place.path(&format!("in.{signal}"))).unwrap();
        assert_eq!(place.names(), ["darner-store", "facts.csv"]);
    }
}

#[test]
fn two_readers_see_whole_tables_while_a_writer_loads() {
    let place = Place::new();
    let write = |round: usize| {
        let rows: String = (0..2000).map(|i| format!("{i},{round},text\n")).collect();
        place.write(&format!("{round}.csv"), &format!("id,round,text\n{rows}"));
    };
    write(0);
    place.ok(&["load", "t", "0.csv", "--key", "id"]);
    for round in 1..6 {
        write(round);
        let file = format!("{round}.csv");
        let load = quiet(
            place
                .command()
                .args(["load", "t", &file, "--mode", "replace"]),
        );
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..5 {
                        let run = place.ok(&["scan", "t", "--select", "round", "--format", "csv"]);
                        let mut rounds: Vec<&str> = run.stdout.lines().skip(1).collect();
                        assert_eq!(rounds.len(), 2000);
                        rounds.dedup();
                        assert_eq!(rounds.len(), 1, "a reader saw a part of a load");
                    }
                });
            }
        });
        assert!(load.wait_with_output().unwrap().status.success());
        let run = place.ok(&[
            "scan", "t", "--select", "round", "--limit", "1", "--format", "csv",
        ]);
        assert_eq!(run.stdout, format!("round\n{round}\n"));
    }
}
