//! What dimensions are about to take, and what there is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use arrow_schema::{DataType, Schema};
use darner_engine::{JoinKind, JoinSpec};

/// Bytes of the index per row of a dimension: those of a hash index, which no other passes by much.
const INDEX_ROW_BYTES: u64 = 24;

/// About what a table takes as a dimension of all its columns.
pub(crate) fn table_bytes((rows, bytes): (u64, u64)) -> u64 {
    bytes + rows * INDEX_ROW_BYTES
}

/// About what a dimension takes: the columns that a join needs, and an index. `bytes` are those of all columns of the table,
/// of which columns of variable width share what those of fixed width leave.
pub(crate) fn dimension_bytes(
    schema: &Schema,
    key: &[String],
    (rows, bytes): (u64, u64),
    join: &JoinSpec,
) -> u64 {
    let payload = payload(join);
    let is_needed = |name: &String| {
        key.contains(name)
            || payload
                .as_ref()
                .is_none_or(|payload| payload.contains(name))
    };
    let (mut fixed_bits, mut needed_bits, mut num_wide, mut num_needed_wide) = (0, 0, 0, 0);
    for field in schema.fields() {
        let needed = u64::from(is_needed(field.name()));
        if let Some(bits) = fixed_width(field.data_type()) {
            fixed_bits += bits;
            needed_bits += bits * needed;
        } else {
            num_wide += 1;
            num_needed_wide += needed;
        }
    }
    let wide_bytes = bytes.saturating_sub(rows * fixed_bits / 8);
    let fixed = (rows * needed_bits / 8).min(bytes);
    let wide = (wide_bytes * num_needed_wide).checked_div(num_wide);
    table_bytes((rows, fixed + wide.unwrap_or(0)))
}

/// The payload columns that a join needs: all, unless it selects some.
pub(crate) fn payload(join: &JoinSpec) -> Option<Vec<String>> {
    if matches!(join.kind, JoinKind::Semi | JoinKind::Anti) {
        return Some(Vec::new());
    }
    let columns = join.select.as_ref()?.iter();
    Some(columns.map(|column| column.column.clone()).collect())
}

/// Bits of a value, where all have the same.
fn fixed_width(data_type: &DataType) -> Option<u64> {
    match data_type {
        DataType::Null => Some(0),
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(bytes) => Some(u64::try_from(*bytes).unwrap_or(0) * 8),
        other => other.primitive_width().map(|bytes| bytes as u64 * 8),
    }
}

/// Bytes of memory that this process may take before the kernel would end something: what the machine has available, or
/// the bound of a control group around it if that is less. `None` where neither is told.
pub(crate) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.and_then(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib * 1024)
    });
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_bound(&groups, Path::new("/sys/fs/cgroup"))
        .into_iter()
        .chain(machine)
        .min()
}

/// The least bound of the control groups that a process is in, as `/proc/PID/cgroup` lists them.
fn group_bound(groups: &str, root: &Path) -> Option<u64> {
    let mut files: Vec<PathBuf> = Vec::new();
    for line in groups.lines() {
        // HIERARCHY:CONTROLLERS:PATH; version 2 has no controllers there.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (root.to_path_buf(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // A bound of a group holds for those in it. In a container the path may be that outside of it.
        let place = Path::new(path.trim_start_matches('/'));
        files.extend(place.ancestors().map(|group| root.join(group).join(file)));
    }
    let bounds = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    // `max` is no number.
    bounds.filter_map(|text| text.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use arrow_schema::Field;

    use super::*;

    #[test]
    fn the_least_bound_around_a_process_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("a/memory.max", "3000\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "2000\n");
        let bound = |groups: &str| group_bound(groups, dir.path());
        assert_eq!(bound("0::/a/b\n"), Some(3000));
        assert_eq!(bound("0::/a/b\n4:cpu,memory:/c/d\n"), Some(2000));
        assert_eq!(bound("0::/x\n4:cpu:/c\n"), None);
        assert_eq!(bound("nonsense"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn columns_that_are_not_needed_take_nothing() {
        let field = |name: &str, data_type| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            field("k", DataType::Int64),
            field("x", DataType::Float64),
            field("s", DataType::Utf8),
            field("t", DataType::Utf8),
        ]);
        let (key, size) = (["k".to_owned()], (10, 10 * (8 + 8 + 50)));
        for (join, bytes) in [
            ("d on k", 8 + 8 + 50),
            ("d on k select x", 8 + 8),
            ("d on k select s", 8 + 25),
            ("semi d on k", 8),
        ] {
            let join = JoinSpec::parse(join).unwrap();
            let expected = 10 * (bytes + INDEX_ROW_BYTES);
            assert_eq!(dimension_bytes(&schema, &key, size, &join), expected);
        }
    }
}
