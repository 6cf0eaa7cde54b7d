//! Verify, backup, restore, and what is said of the store as a whole.

use crate::place::Place;

fn place() -> Place {
    let place = Place::new();
    place.write("a.csv", "faa,name\nJFK,Kennedy\nLGA,Guardia\n");
    place.ok(&["load", "airports", "a.csv", "--key", "faa"]);
    place.ok(&["state", "put", "s", "k", "v"]);
    place
}

#[test]
fn the_store_says_what_it_holds() {
    let place = place();
    let run = place.ok(&["info"]);
    for words in [
        "darner-store\n",
        "version  2, of 20",
        "2 commits in the log",
        "tables   1: airports",
        "state    1: s",
    ] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    let run = place.ok(&["info", "--json"]);
    for words in [
        r#""version":2"#,
        r#""tables":["airports"]"#,
        r#""checkpoint_version":0"#,
    ] {
        assert!(run.stdout.contains(words), "{} lacks {words}", run.stdout);
    }
    place.fails(&["--store", "none", "info"], 3, &["none", "--store"]);
}

#[test]
fn a_sound_store_is_verified_and_a_damaged_one_is_not() {
    let place = place();
    place.ok(&["compact"]);
    let run = place.ok(&["verify"]);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("checked"), "{}", run.stderr);
    let run = place.ok(&["verify", "--json"]);
    assert!(run.stdout.contains(r#""problems":[]"#), "{}", run.stdout);
    let files = std::process::Command::new("find")
        .args(["darner-store/checkpoint", "-name", "*.parquet"])
        .current_dir(place.dir())
        .output()
        .unwrap();
    let files = String::from_utf8(files.stdout).unwrap();
    let file = place.path(files.lines().next().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let run = place.run(&["verify"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains(name), "{}", run.stdout);
    assert!(run.stderr.contains("problem"), "{}", run.stderr);
    let run = place.run(&["verify", "--json"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stdout.contains(name), "{}", run.stdout);
    place.fails(&["--store", "none", "verify"], 3, &["none", "--store"]);
}

#[test]
fn a_backup_is_restored_as_it_was() {
    let place = place();
    let rows = place.ok(&["scan", "airports", "--format", "csv"]).stdout;
    let run = place.ok(&["backup", "copy", "--json"]);
    assert!(run.stdout.contains(r#""version":2"#), "{}", run.stdout);
    place.ok(&["drop", "airports"]);
    let run = place.ok(&["--store", "again", "restore", "copy"]);
    assert!(
        run.stderr
            .starts_with("copy copied to again as of version 2"),
        "{}",
        run.stderr
    );
    let scan = |store: &str| {
        place
            .ok(&["--store", store, "scan", "airports", "--format", "csv"])
            .stdout
    };
    assert_eq!(scan("again"), rows);
    // The copy is a store itself.
    assert_eq!(scan("copy"), rows);
    let run = place.ok(&["--store", "again", "state", "get", "s", "k"]);
    assert_eq!(run.stdout, "v\n");
    place.ok(&["--store", "again", "verify"]);
    place.ok(&["--store", "again", "load", "airports", "a.csv"]);
}

#[test]
fn what_would_be_overwritten_is_refused() {
    let place = place();
    place.write("file", "no directory");
    place.ok(&["backup", "copy"]);
    place.fails(&["backup", "copy"], 1, &["copy", "not an empty", "another"]);
    place.fails(&["backup", "file"], 1, &["file", "not an empty"]);
    for dir in ["darner-store", "darner-store/copy", "./darner-store/log"] {
        place.fails(&["backup", dir], 2, &[dir, "inside the store"]);
    }
    assert!(!place.path("darner-store/copy").exists());
    place.fails(
        &["restore", "copy"],
        1,
        &["darner-store", "not an empty", "--store"],
    );
    place.fails(
        &["--store", "new", "restore", "nowhere"],
        3,
        &["no backup", "nowhere"],
    );
    place.fails(
        &["--store", "none", "backup", "copy2"],
        3,
        &["none", "--store"],
    );
    for name in ["new", "none", "copy2"] {
        assert!(!place.path(name).exists(), "{name}");
    }
    assert_eq!(
        std::fs::read_to_string(place.path("file")).unwrap(),
        "no directory"
    );
}
