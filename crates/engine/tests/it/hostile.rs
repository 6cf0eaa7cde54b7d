//! Damaged inputs of every format: an error that names the input, or an answer; never a panic.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use crate::data::{Random, drain, flat_batch, wide_batch, write};
use darner_engine::{Compression, SinkOptions, SourceOptions, open};
use std::{fs, path::Path};

/// Every variant that the readers tell apart.
fn cases() -> Vec<(&'static str, Option<Compression>)> {
    vec![
        ("x.arrow", None),
        ("x.arrow", Some(Compression::Lz4)),
        ("x.arrow", Some(Compression::Zstd)),
        ("x.arrows", None),
        ("x.arrows", Some(Compression::Zstd)),
        ("x.parquet", None),
        ("x.parquet", Some(Compression::Uncompressed)),
        ("x.parquet", Some(Compression::Snappy)),
        ("x.csv", None),
        ("x.csv.gz", None),
        ("x.csv.zst", None),
        ("x.ndjson", None),
        ("x.ndjson.gz", None),
    ]
}

fn written(dir: &Path, name: &str, compression: Option<Compression>) -> Vec<u8> {
    let path = dir.join(name);
    let mut options = SinkOptions::default();
    options.compression = compression;
    let batch = if name.contains(".csv") {
        flat_batch(12)
    } else {
        wide_batch(12)
    };
    write(
        &path,
        &batch.schema(),
        &[batch.clone(), batch.slice(3, 5)],
        &options,
    )
    .unwrap();
    fs::read(&path).unwrap()
}

fn check(path: &Path, bytes: &[u8], what: &str) -> bool {
    // A new file each time: one that is mapped must not be overwritten.
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
    let mut is_ok = true;
    for memory_map in [true, false] {
        let mut options = SourceOptions::default();
        options.memory_map = memory_map;
        let result = open(path, &options).and_then(|mut source| drain(source.as_mut()));
        is_ok = result.is_ok();
        if let Err(error) = result {
            let message = error.message();
            assert!(
                message.contains(path.to_str().unwrap()),
                "{what}: {error:?}"
            );
        }
    }
    is_ok
}

#[test]
fn truncated_files_never_panic() {
    for (name, compression) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = written(dir.path(), name, compression);
        let path = dir.path().join(name);
        let step = (bytes.len() / 400).max(1);
        let mut num_ok = 0;
        for len in (0..bytes.len()).step_by(step) {
            let is_ok = check(&path, &bytes[..len], &format!("{name} cut to {len}"));
            num_ok += usize::from(is_ok);
        }
        // Formats with a footer or a checksum at the end must notice every cut.
        if matches!(name.rsplit('.').next(), Some("arrow" | "parquet" | "gz")) {
            assert_eq!(num_ok, 0, "{name}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for (name, compression) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let good = written(dir.path(), name, compression);
        let path = dir.path().join(name);
        let mut random = Random::new(0x5EED);
        for round in 0..600 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] = match random.below(4) {
                    0 => bytes[at] ^ (1 << random.below(8)),
                    1 => 0xFF,
                    2 => 0x7F,
                    _ => u8::try_from(random.below(256)).unwrap(),
                };
            }
            check(&path, &bytes, &format!("{name} round {round}"));
        }
    }
}

#[test]
fn random_bytes_behind_a_signature_never_panic() {
    let mut random = Random::new(7);
    let dir = tempfile::tempdir().unwrap();
    for round in 0..200 {
        let noise: Vec<u8> = (0..random.below(300))
            .map(|_| u8::try_from(random.below(256)).unwrap())
            .collect();
        for (name, head, tail) in [
            ("x.arrow", &b"ARROW1\0\0"[..], &b"ARROW1"[..]),
            ("x.arrows", &b"\xFF\xFF\xFF\xFF"[..], &b""[..]),
            ("x.parquet", &b"PAR1"[..], &b"PAR1"[..]),
            ("x.csv", &b""[..], &b""[..]),
            ("x.csv.gz", &b"\x1F\x8B\x08\0"[..], &b""[..]),
            ("x.ndjson.zst", &b"\x28\xB5\x2F\xFD"[..], &b""[..]),
        ] {
            let bytes = [head, &noise, tail].concat();
            check(
                &dir.path().join(name),
                &bytes,
                &format!("{name} round {round}"),
            );
        }
    }
}
