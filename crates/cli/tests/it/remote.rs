use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::place::{Place, Run};

const BUCKET: &str = "lake";
const KEY_ID: &str = "AKEY";
const SECRET: &str = "a secret";

/// An S3 server of this process, with one bucket, which is a directory.
struct S3 {
    root: TempDir,
    address: SocketAddr,
}

impl S3 {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = service.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the process.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let service = service.clone();
                    tokio::spawn(async move {
                        let http = Builder::new(TokioExecutor::new());
                        let _ = http.serve_connection(TokioIo::new(socket), service).await;
                    });
                }
            });
        });
        Self { root, address }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.path().join(BUCKET).join(key)
    }

    fn write(&self, key: &str, text: &str) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, key: &str) -> String {
        fs::read_to_string(self.path(key)).unwrap()
    }

    /// The keys of all objects, in order.
    fn keys(&self) -> Vec<String> {
        let pattern = format!("{}/**/*", self.path("").display());
        let mut keys = Vec::new();
        for pattern in [&pattern, &pattern.replace("**/*", "**/.*")] {
            for path in glob::glob(pattern).unwrap().map(Result::unwrap) {
                if path.is_file() {
                    let key = path.strip_prefix(self.path("")).unwrap();
                    keys.push(key.to_str().unwrap().to_owned());
                }
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn command(&self, place: &Place, args: &[&str]) -> Command {
        let mut command = place.command();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command
            .env("NO_PROXY", "*")
            .env("AWS_ENDPOINT_URL", format!("http://{}", self.address))
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .args(args);
        command
    }

    fn run(&self, place: &Place, args: &[&str]) -> Run {
        Run::of(self.command(place, args).output().unwrap())
    }

    #[track_caller]
    fn ok(&self, place: &Place, args: &[&str]) -> Run {
        let run = self.run(place, args);
        assert_eq!(run.code, Some(0), "darner {args:?}\n{}", run.stderr);
        run
    }

    #[track_caller]
    fn fails(&self, place: &Place, args: &[&str], code: i32, words: &[&str]) {
        let run = self.run(place, args);
        assert_eq!(run.code, Some(code), "darner {args:?}\n{}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{} lacks {word}", run.stderr);
        }
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
}

/// A web server that knows whole files, and neither HEAD nor parts. Gives its address.
fn web(files: BTreeMap<&'static str, String>) -> SocketAddr {
    fn answer(mut stream: TcpStream, files: &BTreeMap<&'static str, String>) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            if header.trim().is_empty() {
                break;
            }
        }
        let mut words = line.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let body = files.get(target).filter(|_| method == "GET");
        let head = match body {
            Some(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()),
            None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n".to_owned(),
        };
        let body = body.map_or("", String::as_str);
        let answer = format!("{head}Connection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).ok()
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &files);
        }
    });
    address
}

#[test]
fn a_table_is_loaded_from_a_bucket_and_facts_go_from_bucket_to_bucket() {
    let (place, s3) = (Place::new(), S3::start());
    s3.write("dim/part 1.csv", "k,name\n1,one\n2,two\n");
    s3.write("dim/part%202.csv", "k,name\n3,three\n");
    s3.write("dim/.hidden.csv", "no,table\n");
    s3.write("in/a.csv", "k,v\n1,10\n3,30\n");
    s3.write("in/b.csv", "k,v\n9,90\n");
    s3.write("in/deep/c.csv", "k,v\n2,20\n");
    s3.ok(&place, &["load", "t", "s3://lake/dim/", "--key", "k"]);
    let rows = "k,name,v\n1,one,10\n3,three,30\n9,,90\n";
    for (from, rows) in [
        ("s3://lake/in/*.csv", rows),
        ("s3://lake/in/", rows),
        ("s3://lake/**/[c]*.csv", "k,name,v\n2,two,20\n"),
    ] {
        let columns = ["--column", "k", "--column", "name", "--column", "v"];
        let join = [&["--with", "left t on k"][..], &columns].concat();
        let args = ["enrich", from, "-o", "s3://lake/out/all.csv"];
        s3.ok(&place, &[&args[..], &join].concat());
        assert_eq!(s3.read("out/all.csv"), rows, "{from}");
        fs::remove_file(s3.path("out/all.csv")).unwrap();
    }
    // Formats that begin with their end, also compressed ones; and back.
    for name in ["x.parquet", "x.arrow", "x.csv.gz"] {
        let url = format!("s3://lake/{name}");
        s3.ok(
            &place,
            &[
                "enrich",
                "s3://lake/in/a.csv",
                "--with",
                "t on k",
                "-o",
                &url,
            ],
        );
        let back = s3.ok(
            &place,
            &[
                "enrich",
                &url,
                "--with",
                "semi t on k",
                "-o",
                "-",
                "--format",
                "csv",
            ],
        );
        assert_eq!(back.stdout, "k,v,name\n1,10,one\n3,30,three\n", "{name}");
    }
    let sum = "SELECT sum(v) AS v FROM 's3://lake/in/*.csv'";
    let answer = s3.ok(&place, &["sql", sum, "--format", "csv"]);
    assert_eq!(answer.stdout, "v\n130\n");
    let sum = "SELECT sum(v) AS v FROM 's3://lake/x.arrow'";
    let answer = s3.ok(&place, &["sql", sum, "--format", "csv"]);
    assert_eq!(answer.stdout, "v\n40\n");
    let copied = "SELECT name FROM 's3://lake/dim/part%202.csv'";
    s3.ok(&place, &["sql", copied, "-o", "s3://lake/sql.ndjson"]);
    assert_eq!(s3.read("sql.ndjson"), "{\"name\":\"three\"}\n");
    // What tools put in the place of a directory, and a statement whose failed upload DataFusion would complete.
    s3.write("in/deep/marker", "");
    let join = ["--with", "semi t on k", "-o", "-", "--format", "csv"];
    let all = s3.ok(
        &place,
        &[&["enrich", "s3://lake/in/**/*"][..], &join].concat(),
    );
    assert_eq!(all.stdout, "k,v\n1,10\n3,30\n2,20\n");
    let copy = "COPY (SELECT * FROM 's3://lake/in/*.csv') TO 's3://lake/copy.csv'";
    s3.fails(
        &place,
        &["sql", copy],
        2,
        &["COPY writes files of this machine"],
    );
    assert!(!s3.path("copy.csv").exists());
    // The program leaves nothing on this machine but its store.
    assert_eq!(place.names(), ["darner-store"]);
}

#[test]
fn an_output_of_many_parts_is_whole() {
    let (place, s3) = (Place::new(), S3::start());
    place.write("d.csv", "k,name\n1,one\n");
    s3.ok(&place, &["load", "d", "d.csv", "--key", "k"]);
    let text: String = (0..40_000)
        .map(|i| format!("1,{}\n", "x".repeat(1000 + i % 7)))
        .collect();
    place.write("facts.csv", &format!("k,v\n{text}"));
    let join = ["--with", "semi d on k", "-o"];
    let url = "s3://lake/big.csv";
    s3.ok(
        &place,
        &[&["enrich", "facts.csv"][..], &join, &[url]].concat(),
    );
    // Longer than two parts.
    assert!(fs::metadata(s3.path("big.csv")).unwrap().len() > 2 * (16 << 20));
    assert!(s3.read("big.csv") == fs::read_to_string(place.path("facts.csv")).unwrap());
    s3.ok(
        &place,
        &[&["enrich", url][..], &join, &["back.csv"]].concat(),
    );
    assert!(
        fs::read(place.path("back.csv")).unwrap() == fs::read(place.path("facts.csv")).unwrap()
    );
}

/// A job whose inputs and outputs are in a bucket.
const JOB: &str = "store = 'store'
[dimension.t]
from = 's3://lake/dim.csv'
key = 'k'
[enrich.facts]
from = 's3://lake/in/**/*.csv'
join = { join = 't on k', max_miss_rate = 0.5 }
to = 's3://lake/out/'
unmatched = 's3://lake/un/'
format = 'csv'
on_vanished_input = 'remove'
report = 's3://lake/report.json'
[enrich.one]
from = 's3://lake/out/**/*.csv'
join = 't on k select name as again'
to = 's3://lake/one.parquet'
[summary.s]
query = 'SELECT count(*) AS n, count(again) AS found FROM one'
[summary.files]
query = 'SELECT count(*) AS n FROM facts'
";

#[test]
fn a_job_in_a_bucket_does_what_is_due() {
    let (place, s3) = (Place::new(), S3::start());
    place.write("job.toml", JOB);
    s3.write("dim.csv", "k,name\n1,one\n2,two\n");
    s3.write("in/a.csv", "k\n1\n2\n");
    s3.write("in/x/b.csv", "k\n1\n7\n");
    let check = s3.ok(&place, &["check", "job.toml"]);
    assert!(
        check.stdout.contains("s3://lake/in/a.csv"),
        "{}",
        check.stdout
    );
    assert_eq!(s3.keys(), ["dim.csv", "in/a.csv", "in/x/b.csv"]);
    let run = s3.ok(&place, &["run", "job.toml"]);
    assert!(run.stderr.contains("2 of 2 files"), "{}", run.stderr);
    assert!(run.stdout.contains("| 4 | 3     |"), "{}", run.stdout);
    let all = [
        "dim.csv",
        "in/a.csv",
        "in/x/b.csv",
        "one.parquet",
        "out/.darner-manifest",
        "out/a.csv",
        "out/x/b.csv",
        "report.json",
        "un/a.csv",
        "un/x/b.csv",
    ];
    assert_eq!(s3.keys(), all);
    assert_eq!(s3.read("out/x/b.csv"), "k,name\n1,one\n7,\n");
    assert!(s3.read("report.json").contains("s3://lake/in/x/b.csv"));
    let run = s3.ok(&place, &["run", "job.toml"]);
    for words in ["t: unchanged", "facts: unchanged", "one: unchanged"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    // An input that is another now, one that is new, and a gate that is not met: what was there stays.
    s3.write("in/a.csv", "k\n2\n2\n2\n");
    s3.write("in/c.csv", "k\n8\n9\n");
    s3.fails(
        &place,
        &["run", "job.toml"],
        4,
        &["1 of 2 files are done", "c.csv"],
    );
    assert_eq!(s3.read("out/a.csv"), "k,name\n2,two\n2,two\n2,two\n");
    assert!(!s3.path("out/c.csv").exists());
    s3.write("in/c.csv", "k\n1\n9\n");
    fs::remove_file(s3.path("in/x/b.csv")).unwrap();
    let run = s3.ok(&place, &["run", "job.toml"]);
    for words in ["1 of 2 files", "2 files removed"] {
        assert!(run.stderr.contains(words), "{} lacks {words}", run.stderr);
    }
    assert_eq!(s3.read("out/c.csv"), "k,name\n1,one\n9,\n");
    assert!(!s3.path("out/x/b.csv").exists() && !s3.path("un/x/b.csv").exists());
    // A dimension that is another now, and then nothing.
    s3.write("dim.csv", "k,name\n1,uno\n2,two\n");
    let run = s3.ok(&place, &["run", "job.toml"]);
    assert!(run.stderr.contains("2 of 2 files"), "{}", run.stderr);
    assert_eq!(s3.read("out/c.csv"), "k,name\n1,uno\n9,\n");
    let run = s3.ok(&place, &["run", "job.toml"]);
    assert!(run.stderr.contains("facts: unchanged"), "{}", run.stderr);
    // An output that somebody has removed is made again.
    fs::remove_file(s3.path("out/c.csv")).unwrap();
    let run = s3.ok(&place, &["run", "job.toml"]);
    assert!(run.stderr.contains("1 of 2 files"), "{}", run.stderr);
    assert!(s3.path("out/c.csv").exists());
}

#[test]
fn a_bucket_says_what_is_wrong_and_keeps_what_it_had() {
    let (place, s3) = (Place::new(), S3::start());
    s3.write("d.csv", "k,name\n1,one\n");
    s3.write("in/f.csv", "k\n1\n5\n");
    s3.write("out.csv", "the last good output");
    s3.ok(&place, &["load", "d", "s3://lake/d.csv", "--key", "k"]);
    let enrich = |from: &'static str, to: &'static str| {
        [
            "enrich",
            from,
            "--with",
            "d on k",
            "-o",
            to,
            "--max-miss-rate",
            "0.1",
        ]
    };
    let out = "s3://lake/out.csv";
    s3.fails(
        &place,
        &enrich("s3://lake/in/f.csv", out),
        4,
        &["more than the 0.1 allowed"],
    );
    s3.fails(
        &place,
        &enrich("s3://lake/in/none.csv", out),
        3,
        &["s3://lake/in/none.csv"],
    );
    s3.fails(
        &place,
        &enrich("s3://lake/in/*.parquet", out),
        3,
        &["no file matches"],
    );
    s3.fails(
        &place,
        &enrich("s3://nowhere/f.csv", out),
        3,
        &["no such bucket", "s3://nowhere"],
    );
    let same = enrich("s3://lake/in/f.csv", "S3A://lake/in/f.csv");
    s3.fails(&place, &same, 2, &["one of the inputs"]);
    let backup = ["backup", "s3://lake/backup"];
    s3.fails(&place, &backup, 2, &["directory of this machine"]);
    s3.fails(&place, &enrich("s3:///f.csv", out), 2, &["no bucket"]);
    s3.fails(
        &place,
        &enrich("s3://lake/in/f.csv", "s3://lake/in/f.csv"),
        2,
        &["one of the inputs"],
    );
    s3.fails(
        &place,
        &enrich("s3://lake/in/f.csv", "s3://lake/in/"),
        2,
        &["is a directory"],
    );
    s3.fails(
        &place,
        &enrich("s3://lake/in/f.csv", "s3://lake/f.xyz"),
        2,
        &["unknown format"],
    );
    let remote_store = ["--store", "s3://lake/store", "tables"];
    s3.fails(
        &place,
        &remote_store,
        2,
        &["a store is a directory of this machine"],
    );
    // Somebody else's credentials, or none.
    let mut stranger = s3.command(&place, &enrich("s3://lake/in/f.csv", out));
    let run = Run::of(stranger.env("AWS_SECRET_ACCESS_KEY", "x").output().unwrap());
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(
        run.stderr.contains("AWS_SECRET_ACCESS_KEY"),
        "{}",
        run.stderr
    );
    // Statements from elsewhere name no files, wherever these are.
    let mut piped = s3.command(&place, &["sql"]);
    let piped = piped.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"SELECT * FROM 's3://lake/in/f.csv'")
        .unwrap();
    drop(stdin);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("not allowed here"), "{}", run.stderr);
    assert_eq!(s3.read("out.csv"), "the last good output");
    assert_eq!(s3.keys(), ["d.csv", "in/f.csv", "out.csv"]);
    assert_eq!(place.names(), ["darner-store"]);
}

#[test]
fn facts_come_from_the_web_and_signatures_stay_secret() {
    let place = Place::new();
    let files = BTreeMap::from([
        ("/a%20b/facts.csv?sig=SECRET", "k\n1\n".to_owned()),
        ("/d.ndjson", "{\"k\": 1, \"name\": \"one\"}\n".to_owned()),
    ]);
    let address = web(files);
    let url = format!("http://{address}/d.ndjson");
    place.ok(&["load", "d", &url, "--key", "k"]);
    let facts = format!("http://{address}/a%20b/facts.csv?sig=SECRET");
    let args = [
        "enrich",
        &facts,
        "--with",
        "d on k",
        "-o",
        "o.parquet",
        "--report",
        "r.json",
    ];
    let run = place.ok(&args);
    let report = fs::read_to_string(place.path("r.json")).unwrap();
    assert!(report.contains("/a%20b/facts.csv"), "{report}");
    let mut output = Vec::new();
    fs::File::open(place.path("o.parquet"))
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    for text in [
        run.stderr,
        report,
        String::from_utf8_lossy(&output).into_owned(),
    ] {
        assert!(!text.contains("SECRET"), "{text}");
    }
    let (none, many) = (
        format!("http://{address}/none.csv"),
        format!("http://{address}/*.csv"),
    );
    let args = |from| ["enrich", from, "--with", "d on k", "-o", "o.parquet"];
    place.fails(&args(&none), 3, &[&none]);
    place.fails(&args(&many), 2, &["does not list its files"]);
    // Not even where nobody listens.
    let closed = "http://127.0.0.1:1/f.csv?sig=SECRET";
    let run = place.run(&args(closed));
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(!run.stderr.contains("SECRET"), "{}", run.stderr);
    let query = format!("SELECT * FROM '{none}'");
    place.fails(&["sql", &query], 2, &["load or enrich"]);
}

/// A server that takes connections, and never answers.
#[test]
fn an_interrupt_ends_the_wait_for_a_server() {
    let place = Place::new();
    place.write("d.csv", "k,name\n1,one\n");
    place.ok(&["load", "d", "d.csv", "--key", "k"]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for args in [
        [
            "enrich",
            "d.csv",
            "--with",
            "d on k",
            "-o",
            "s3://lake/o.csv",
        ],
        [
            "enrich",
            "s3://lake/in.csv",
            "--with",
            "d on k",
            "-o",
            "o.csv",
        ],
    ] {
        let mut command = place.command();
        command
            .env("NO_PROXY", "*")
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .env("AWS_ACCESS_KEY_ID", KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .args(args)
            .stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // It waits for the server from here on.
        let (connection, _) = listener.accept().unwrap();
        let id = child.id().to_string();
        let signal = Command::new("kill").args(["-INT", &id]).status();
        assert!(signal.unwrap().success());
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, Some(130), "{}", run.stderr);
        drop(connection);
        assert_eq!(place.names(), ["d.csv", "darner-store"]);
    }
}
