//! Jobs whose output is a directory: what is finished stays finished.

use std::{
    collections::BTreeMap, fs::OpenOptions, io::Write, path::Path, process::Stdio, time::Duration,
};

use darner_engine::SourceOptions;

use crate::place::{Place, Run};

const JOB: &str = "
store = 'store'

[dimension.airports]
from = 'airports.csv'
key = 'code'

[enrich.flights]
from = 'in/'
join = 'airports on dest = code select city'
to = 'out/'
format = 'csv'
";

fn place(job: &str) -> Place {
    let place = Place::new();
    place.write("job.toml", job);
    place.write(
        "airports.csv",
        "code,city\nJFK,New York\nSFO,San Francisco\n",
    );
    std::fs::create_dir(place.path("in")).unwrap();
    place.write("in/a.csv", "flight,dest\n1,JFK\n2,SFO\n");
    place.write("in/b.csv", "flight,dest\n3,XXX\n4,JFK\n");
    place.write("in/c.csv", "flight,dest\n5,SFO\n");
    place
}

/// Every file below a directory that is not hidden, with its content.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(root: &Path, dir: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                walk(root, &path, files);
            } else if name != ".darner-manifest" {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                files.insert(name.to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    let mut files_found = BTreeMap::new();
    walk(root, root, &mut files_found);
    files_found
}

fn names(place: &Place, dir: &str) -> Vec<String> {
    files(&place.path(dir)).into_keys().collect()
}

#[track_caller]
fn says(place: &Place, words: &str) {
    let run = place.ok(&["run", "job.toml"]);
    assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
}

#[test]
fn only_files_that_changed_are_made_again() {
    let place = place(JOB);
    says(&place, "flights: 3 of 3 files enriched");
    assert_eq!(names(&place, "out"), ["a.csv", "b.csv", "c.csv"]);
    let text = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(
        text("out/b.csv"),
        "flight,dest,city\n3,XXX,\n4,JFK,New York\n"
    );
    says(&place, "flights: unchanged, 3 files with 5 rows in out/");
    place.write("in/b.csv", "flight,dest\n3,SFO\n");
    place.write("in/d.csv", "flight,dest\n6,SFO\n");
    let run = place.ok(&["check", "job.toml"]);
    let words = "enrich  flights   2 of 4 files are to be made; the first: the file has changed";
    assert!(run.stdout.contains(words), "{}", run.stdout);
    let before = std::fs::metadata(place.path("out/a.csv"))
        .unwrap()
        .modified()
        .unwrap();
    says(&place, "flights: 2 of 4 files enriched");
    let after = std::fs::metadata(place.path("out/a.csv"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
    assert_eq!(text("out/b.csv"), "flight,dest,city\n3,SFO,San Francisco\n");
    // A file that was lost or changed by somebody is made again.
    std::fs::remove_file(place.path("out/a.csv")).unwrap();
    place.write("out/c.csv", "nothing");
    says(&place, "flights: 2 of 4 files enriched");
    assert!(text("out/c.csv").contains("San Francisco"));
    // The rows of all files are counted, of those that stay too.
    let run = place.ok(&["run", "job.toml"]);
    let line = run
        .stderr
        .lines()
        .find(|line| line.contains("dest = code"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words.join(" "), "airports dest = code 5 0 0 100.00 %");
}

#[test]
fn a_changed_dimension_is_for_the_job_to_decide() {
    for (on_change, num_redone, city) in [("redo", 3, "Frisco"), ("keep", 1, "San Francisco")] {
        let place = place(&format!("{JOB}on_dimension_change = '{on_change}'\n"));
        place.ok(&["run", "job.toml"]);
        place.write("airports.csv", "code,city\nJFK,New York\nSFO,Frisco\n");
        place.write("in/b.csv", "flight,dest\n3,SFO\n");
        says(
            &place,
            &format!("flights: {num_redone} of 3 files enriched"),
        );
        let text = std::fs::read_to_string(place.path("out/c.csv")).unwrap();
        assert_eq!(text, format!("flight,dest,city\n5,SFO,{city}\n"));
        let text = std::fs::read_to_string(place.path("out/b.csv")).unwrap();
        assert_eq!(text, "flight,dest,city\n3,SFO,Frisco\n");
    }
}

#[test]
fn what_was_made_of_inputs_that_are_gone_stays_or_goes_as_declared() {
    let kept = place(JOB);
    kept.ok(&["run", "job.toml"]);
    std::fs::remove_file(kept.path("in/a.csv")).unwrap();
    says(&kept, "1 inputs are gone; what was made of them stays");
    assert_eq!(names(&kept, "out"), ["a.csv", "b.csv", "c.csv"]);

    let place = place(&format!(
        "{JOB}on_vanished_input = 'remove'\nunmatched = 'bad/'\n"
    ));
    place.ok(&["run", "job.toml"]);
    assert_eq!(names(&place, "bad"), ["a.csv", "b.csv", "c.csv"]);
    std::fs::remove_file(place.path("in/a.csv")).unwrap();
    std::fs::remove_file(place.path("in/b.csv")).unwrap();
    place.write("out/b.csv", "somebody's own");
    place.write("out/other.csv", "somebody's own");
    says(&place, "3 files removed whose inputs are gone");
    assert_eq!(names(&place, "out"), ["b.csv", "c.csv", "other.csv"]);
    assert_eq!(names(&place, "bad"), ["c.csv"]);
    says(&place, "flights: unchanged, 1 files");
}

#[test]
fn a_file_that_fails_leaves_those_before_it_done() {
    let place = place(&format!("{JOB}max_miss_rate = 0.4\n"));
    let run = place.run(&["run", "job.toml"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    for words in [
        "1 of 3 files are done and stay",
        "in/b.csv is not",
        "0.5000 of the keys",
        "XXX 1",
    ] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    assert_eq!(names(&place, "out"), ["a.csv"]);
    place.write("in/b.csv", "flight,dest\n3,SFO,\n");
    let run = place.run(&["run", "job.toml"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("0 of 2 files are done"),
        "{}",
        run.stderr
    );
    place.write("in/b.csv", "flight,dest\nthree,SFO\n");
    // Text where the file before has numbers would be no table any more; CSV knows no types.
    let job = JOB
        .replace("'csv'", "'parquet'")
        .replace("'out/'", "'typed/'");
    place.write("job.toml", &job);
    let run = place.run(&["run", "job.toml"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    for words in [
        "in/b.csv",
        "got=`flight Utf8` expected=`flight Int64`",
        "types = ",
    ] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    place.write("job.toml", &format!("{job}types = ['flight = string']\n"));
    says(&place, "flights: 3 of 3 files enriched");
    let sql = "SELECT count(*) AS n, max(flight) AS m FROM 'typed/'";
    assert_eq!(
        place.ok(&["sql", sql, "--format", "csv"]).stdout,
        "n,m\n4,three\n"
    );
}

#[test]
fn a_manifest_may_be_cut_off_but_not_damaged() {
    let place = place(JOB);
    place.ok(&["run", "job.toml"]);
    let path = place.path("out/.darner-manifest");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    says(&place, "flights: 1 of 3 files enriched");
    says(&place, "flights: unchanged");
    std::fs::write(&path, text.replacen("\"files\"", "\"flies\"", 1)).unwrap();
    place.fails(
        &["run", "job.toml"],
        1,
        &[".darner-manifest: line 2", "remove the file"],
    );
    // Nothing outside of the directory is ever touched.
    std::fs::write(&path, text.replacen("\"a.csv\"", "\"../in/a.csv\"", 1)).unwrap();
    place.fails(&["run", "job.toml"], 1, &["outside of the directory"]);
    std::fs::remove_file(&path).unwrap();
    says(&place, "flights: 3 of 3 files enriched");
}

#[test]
fn rows_are_put_into_directories_and_files_of_a_size() {
    let job = JOB.replace(
        "format = 'csv'",
        "format = 'csv'\npartition_by = ['dest', 'day']\ntarget_file_rows = 2",
    );
    let place = place(&job);
    place.write(
        "in/a.csv",
        "flight,dest,day\n1,JFK,a/b\n2,SFO,\n3,JFK,a/b\n4,JFK,a/b\n5,SFO,..\n",
    );
    for name in ["in/b.csv", "in/c.csv"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    place.ok(&["run", "job.toml"]);
    let jfk = "dest=JFK/day=a%2Fb";
    let expected = [
        format!("{jfk}/a-00000.csv"),
        format!("{jfk}/a-00001.csv"),
        "dest=SFO/day=%2E%2E/a-00000.csv".to_owned(),
        "dest=SFO/day=__HIVE_DEFAULT_PARTITION__/a-00000.csv".to_owned(),
    ];
    assert_eq!(names(&place, "out"), expected);
    let text = |name: &str| std::fs::read_to_string(place.path("out").join(name)).unwrap();
    assert_eq!(text(&expected[0]), "flight,city\n1,New York\n3,New York\n");
    assert_eq!(text(&expected[1]), "flight,city\n4,New York\n");
    // Files that the input does not have any more go.
    place.write("in/a.csv", "flight,dest,day\n1,JFK,a/b\n2,SFO,x\n");
    place.ok(&["run", "job.toml"]);
    assert_eq!(
        names(&place, "out"),
        [expected[0].as_str(), "dest=SFO/day=x/a-00000.csv"]
    );
    for (from, to, words) in [
        ("'day']", "'dya']", "did you mean `day`?"),
        ("'day']", "'day', 'flight', 'city']", "no column is left"),
    ] {
        let wrong = job.replace(from, to);
        place.write("wrong.toml", &wrong);
        place.fails(&["run", "wrong.toml"], 2, &[words]);
        assert_eq!(place.run(&["check", "wrong.toml"]).code, Some(2));
    }
}

/// Parquet files by a column of the dimension: of the type that was asked for, whatever columns come in.
#[test]
fn parts_of_parquet_have_the_encoding_that_is_asked_for() {
    for (encoding, data_type) in [
        ("plain", "Utf8"),
        ("view", "Utf8View"),
        ("dictionary", "Dictionary(Int32, Utf8)"),
    ] {
        let job = JOB.replace("select city", "select city, state, name");
        let with = format!(
            "format = 'parquet'\nencoding = '{encoding}'\npartition_by = ['state']\ntarget_file_rows = 2"
        );
        let place = place(&job.replace("format = 'csv'", &with));
        let airports = "code,city,state,name\nJFK,New York,NY,Kennedy\nSFO,San Francisco,CA,\n";
        place.write("airports.csv", airports);
        place.ok(&["run", "job.toml"]);
        let nowhere = "state=__HIVE_DEFAULT_PARTITION__/b-00000.parquet";
        for (file, expected) in [
            ("state=NY/a-00000.parquet", "1\tNew York\tKennedy\n"),
            ("state=CA/a-00000.parquet", "2\tSan Francisco\t\n"),
            ("state=NY/b-00000.parquet", "4\tNew York\tKennedy\n"),
            ("state=CA/c-00000.parquet", "5\tSan Francisco\t\n"),
            (nowhere, "3\t\t\n"),
        ] {
            let path = format!("out/{file}");
            let rows = format!("SELECT flight, city, name FROM '{path}'");
            let run = place.ok(&["sql", &rows, "--format", "tsv"]);
            assert_eq!(run.stdout, format!("flight\tcity\tname\n{expected}"));
            let part = darner_engine::open(&place.path(&path), &SourceOptions::default()).unwrap();
            let schema = part.schema();
            for name in ["city", "name"] {
                let field = schema.field_with_name(name).unwrap();
                assert_eq!(field.data_type().to_string(), data_type);
            }
        }
    }
}

#[test]
fn a_directory_is_named_as_one() {
    let place = place(&JOB.replace("'out/'", "'there'"));
    std::fs::create_dir(place.path("there")).unwrap();
    let words = "end it with / to write a file for each input";
    place.fails(&["run", "job.toml"], 2, &[words]);
    assert_eq!(place.run(&["check", "job.toml"]).code, Some(2));
    assert!(names(&place, "there").is_empty());
}

#[test]
fn too_many_files_of_one_input_are_refused_before_the_system_does() {
    let place = place(JOB);
    let rows: String = (0..600).map(|row| format!("{row},JFK\n")).collect();
    place.write("in/b.csv", &format!("flight,dest\n{rows}"));
    let job = JOB.replace("format = 'csv'", "format = 'csv'\ntarget_file_rows = 1");
    place.write("job.toml", &job);
    place.fails(
        &["run", "job.toml"],
        1,
        &["more than 512 files", "target_file_rows"],
    );
    assert_eq!(names(&place, "out"), ["a-00000.csv", "a-00001.csv"]);
}

/// A job of many rows in several files, and its outputs by an uninterrupted run with some threads.
const LARGE: &str = "
store = 'store'

[dimension.d]
from = 'd.csv'
key = 'id'

[enrich.e]
from = 'in/*.csv'
join = { join = 'd on key = id', on_miss = 'route' }
to = 'out/'
unmatched = 'bad/'
partition_by = 'kind'
target_file_rows = 1000
where = 'fact % 7 <> 3'
columns = ['*', 'fact * 0.5 as half']
";

fn large() -> Place {
    let place = Place::new();
    place.write("job.toml", LARGE);
    let rows: String = (0..500).map(|id| format!("{id},name {id}\n")).collect();
    place.write("d.csv", &format!("id,name\n{rows}"));
    std::fs::create_dir(place.path("in")).unwrap();
    for file in 0..6_u32 {
        let row = |row: u32| format!("{row},{},k{}\n", (row * 31 + file) % 600, row % 3);
        let rows: String = (0..6_000).map(row).collect();
        place.write(&format!("in/{file}.csv"), &format!("fact,key,kind\n{rows}"));
    }
    place
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let place = large();
    let mut expected = None;
    for threads in ["1", "2", "5"] {
        for dir in ["out", "bad"] {
            let _ = std::fs::remove_dir_all(place.path(dir));
        }
        place.ok(&["run", "job.toml", "--threads", threads]);
        let found = (files(&place.path("out")), files(&place.path("bad")));
        assert!(found.0.len() > 6 * 3 && found.1.len() == 6);
        let expected = expected.get_or_insert_with(|| found.clone());
        assert!(found == *expected, "other bytes with {threads} threads");
    }
}

#[test]
fn a_killed_job_goes_on_and_ends_as_if_it_had_not_been_killed() {
    let place = large();
    let run = || {
        let mut command = place.command();
        command.args(["run", "job.toml", "--threads", "2"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let num_lines = || {
        let manifest = std::fs::read_to_string(place.path("out/.darner-manifest"));
        manifest.map_or(0, |text| text.lines().count())
    };
    assert!(run().wait().unwrap().success());
    let expected = (files(&place.path("out")), files(&place.path("bad")));
    let mut num_partly_done = 0;
    for round in 0..4_u64 {
        for dir in ["out", "bad", "store"] {
            std::fs::remove_dir_all(place.path(dir)).unwrap();
        }
        // Killed a little while after some more files are done, again and again until it ends by itself.
        for again in 0.. {
            let seed = round * 1000 + again;
            let wanted = num_lines().max(1) + usize::try_from(random(seed, 3)).unwrap();
            let mut child = run();
            let mut left = random(seed + 500, 400);
            let ended = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    assert!(status.success(), "round {round}");
                    break true;
                }
                if num_lines() < wanted {
                    continue;
                }
                if left == 0 {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break false;
                }
                left -= 1;
            };
            // Whatever has a name of its own is whole.
            for (dir, expected) in [("out", &expected.0), ("bad", &expected.1)] {
                if place.path(dir).exists() {
                    for (name, bytes) in named(&place, dir) {
                        assert!(expected.get(&name) == Some(&bytes), "round {round}: {name}");
                    }
                }
            }
            if ended {
                break;
            }
            num_partly_done += u32::from((2..7).contains(&num_lines()));
        }
        place.ok(&["run", "job.toml"]);
        assert!(
            (named(&place, "out"), named(&place, "bad")) == expected,
            "round {round}"
        );
    }
    assert!(num_partly_done > 0, "no run was killed between two files");
}

/// The files of a directory but those that were about to get their names when the program was killed.
fn named(place: &Place, dir: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(&place.path(dir));
    files.retain(|name, _| !name.contains(".tmp"));
    files
}

/// A number below `bound`, from a seed (`SplitMix64`).
fn random(seed: u64, bound: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 27)) % bound
}

/// A run that was killed after it had noted what is done, and before it had removed what that replaces.
#[test]
fn replaced_files_that_a_killed_run_has_left_are_removed() {
    let place = place(JOB);
    place.ok(&["run", "job.toml"]);
    let manifest = place.path("out/.darner-manifest");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let left = text.replacen("\"stale\":[]", "\"stale\":[\"left.csv\"]", 1);
    assert_ne!(text, left);
    std::fs::write(&manifest, left).unwrap();
    place.write("out/left.csv", "flight,dest,city\n");
    place.ok(&["run", "job.toml"]);
    assert!(!place.path("out/left.csv").exists());
    assert_eq!(std::fs::read_to_string(&manifest).unwrap(), text);
}

/// One file cannot be read, or is still being written. What is wrong with it is said, the files before it are done, and what
/// was made of it before stays.
#[test]
fn one_bad_file_among_others_harms_nothing() {
    let place = place(JOB);
    place.ok(&["run", "job.toml"]);
    let mut good = files(&place.path("out"));
    place.write("in/a.csv", "flight,dest\n7,SFO\n");
    good.insert(
        "a.csv".to_owned(),
        b"flight,dest,city\n7,SFO,San Francisco\n".to_vec(),
    );

    std::fs::rename(place.path("in/b.csv"), place.path("b.csv")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("in/b.csv")).unwrap();
    place.fails(&["run", "job.toml"], 3, &["in/b.csv", "No such file"]);
    std::fs::remove_file(place.path("in/b.csv")).unwrap();

    let row = "3,XXX\n";
    let long = format!("flight,dest\n{}", row.repeat(2_000_000));
    place.write("in/b.csv", &long);
    let mut growing = OpenOptions::new()
        .append(true)
        .open(place.path("in/b.csv"))
        .unwrap();
    let mut child = place
        .command()
        .args(["run", "job.toml"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        growing.write_all(row.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    for words in ["in/b.csv is not", "was changed while it was read"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    assert!(files(&place.path("out")) == good);

    // Once it is complete it is taken.
    std::fs::rename(place.path("b.csv"), place.path("in/b.csv")).unwrap();
    place.ok(&["run", "job.toml"]);
    assert!(files(&place.path("out")) == good);
}
