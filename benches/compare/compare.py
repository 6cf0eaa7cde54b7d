#!/usr/bin/env python3
"""Joins and loads: Darner beside DuckDB, Polars, DataFusion and pyarrow, on the same data.

Every answer of every run is checked. How to run it is in README.md.
"""

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SEED = 42
REST_SECONDS = 0.5
ENCODINGS = ["view", "plain", "dictionary"]
PEERS = ["DuckDB", "Polars", "DataFusion", "pyarrow"]
# name: (kind of key, rows of the dimension)
CASES = {
    "int64 dense 1K": ("dense", 1_000),
    "int64 dense 100K": ("dense", 100_000),
    "int64 dense 1M": ("dense", 1_000_000),
    "int64 dense 10M": ("dense", 10_000_000),
    "int64 hourly 1M": ("hourly", 1_000_000),
    "int64 sparse 1M": ("sparse", 1_000_000),
    "utf8 1K": ("utf8", 1_000),
    "utf8 100K": ("utf8", 100_000),
    "utf8 1M": ("utf8", 1_000_000),
    "int64 + utf8 100K": ("composite", 100_000),
    "star of five, 1K to 1M": ("star", 1_000_000),
}
STAR_ROWS = [1_000, 10_000, 100_000, 300_000, 1_000_000]
# From file to file: name, and the extension of the files.
FILE_CASES = {"IPC to IPC": "arrow", "Parquet to Parquet": "parquet"}
FILE_ROWS = 1_000_000
# Arrow IPC that is read: name, and how the file is compressed.
LOAD_CASES = {"load IPC": None, "load IPC, LZ4": "lz4", "load IPC, Zstandard": "zstd"}
LOAD_PEERS = ["Polars", "DataFusion", "pyarrow"]
COUNTED = """\
What is counted: a left join of all fact rows that adds three columns (name, group, weight), with the
whole result kept in memory; median of {rounds} rounds after a warm-up, the engines taking turns
in a new order each round, half a second apart. In its turn an engine runs twice, and the second run
counts: so no engine waits for memory that another has just given back to the system.

- The numbers are million fact rows per second. In brackets: that number by the best peer's.
- Darner's dimension is built before and kept. Its build time is the last column. Views of its strings
  are prepared once, in the warm-up. The peers build their hash table in each query.
- Darner's fact columns come out shared, not copied. The peers are free to do so too.
- DuckDB: a temporary table over its own tables, or an Arrow table. Polars: eager, or lazy with the
  streaming engine. The better way is taken, and named under the table.
- DuckDB need not keep the order of rows (`preserve_insertion_order=false`).
- Rows, matches and the sum of `weight` of every run are checked against those that made the data.
"""

COUNTED_FILES = """\
What is counted: whole processes, from start to end, that join facts with {rows:,} rows (int64 keys, dense) and
write all columns to a file; median of {rounds} rounds after a warm-up, the engines taking turns. The page
cache is warm.

- The numbers are million fact rows per second. In brackets: that number by the best peer's.
- Darner is its command line. Its dimension is in its store already; the last column says what loading it
  took, once. The peers are Python scripts (`files.py`), and read the dimension's file each time.
- Darner's output is on disk (synced) when it ends. The others leave theirs in the page cache; in the rows "on disk"
  the time counts until theirs is there too (`fsync`), in the same runs.
- IPC is not compressed. Parquet is compressed with Zstandard, level 1.
- Rows, matches and the sum of `weight` of every output are checked.
"""

COUNTED_LOADS = """\
What is counted: a file of rows of two int64 and a float64 (24 bytes, batches of 64 Ki rows) is opened, read, and
every value of it added up; median of {rounds} rounds after a warm-up, the engines taking turns. The page cache is
warm, and each run maps or opens the file anew.

- The numbers are million rows per second. In brackets: that number by the best peer's.
- pyarrow maps the file, and adds columns up side by side. Polars: eager, or lazy with the streaming engine, the better.
- Rows and sums of every run are checked.
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=int, default=10_000_000, help="fact rows")
    parser.add_argument("--threads", type=int, default=2, help="threads of every engine")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--match", type=float, default=1.0, help="share of facts with a match")
    parser.add_argument("--cases", default="", help="only cases with this in their name")
    parser.add_argument("--dir", type=Path, help="where the data goes (default: temporary)")
    parser.add_argument("--program", type=Path, help="the built example `compare`")
    parser.add_argument("--darner", type=Path, help="the built command line, for file to file")
    parser.add_argument("--output", type=Path, help="write the report here, as Markdown")
    parser.add_argument("--chart", type=Path, help="write a bar chart here, as SVG")
    options = parser.parse_args()
    known = [*CASES, *FILE_CASES, *LOAD_CASES]
    if not any(options.cases in name for name in known):
        parser.error(f"no case has {options.cases!r} in its name: {', '.join(known)}")
    if min(options.facts, options.threads, options.rounds) < 1:
        parser.error("--facts, --threads and --rounds are at least 1")
    if not 0 < options.match <= 1:
        parser.error("--match is above 0 and at most 1")
    return options


OPTIONS = arguments()
# Both are read once, when the library starts.
os.environ["POLARS_MAX_THREADS"] = str(OPTIONS.threads)
os.environ["TOKIO_WORKER_THREADS"] = str(OPTIONS.threads)

import datafusion  # noqa: E402
import duckdb  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

pa.set_cpu_count(OPTIONS.threads)


# The data


def texts(rng, count, shortest, longest):
    """Distinct strings: random letters of random number, then eight digits that are never twice the same."""
    letters = "".join(map(chr, rng.integers(97, 123, 1 << 16)))
    starts = rng.integers(0, len(letters) - longest, count).tolist()
    lengths = rng.integers(shortest - 8, longest - 7, count).tolist()
    pairs = enumerate(zip(starts, lengths))
    return pa.array([f"{letters[start:start + length]}{idx:08x}" for idx, (start, length) in pairs])


def key_columns(rng, kind, count):
    if kind == "dense":
        return {"key": pa.array(np.arange(count))}
    if kind == "hourly":
        # Hours as nanoseconds, in no order.
        return {"key": pa.array(rng.permutation(count) * 3_600_000_000_000)}
    if kind == "sparse":
        # To multiply by an odd number keeps numbers apart, and spreads them over 64 bits.
        return {"key": pa.array(rng.permutation(count) * 0x2545F4914F6CDD1D)}
    if kind == "utf8":
        return {"key": texts(rng, count, 8, 40)}
    # Neither column is a key alone.
    codes = pa.array([f"c{code:04d}" for code in range(count // 100 + 1)])
    ids = np.arange(count)
    return {"key": pa.array(ids % 1000), "code": codes.take(pa.array(ids // 1000))}


def dimension(rng, keys, count):
    """Keys, two strings and a float."""
    ids = pa.array(np.arange(count)).cast(pa.string())
    groups = pa.array(np.arange(count) % 97).cast(pa.string())
    columns = {
        "name": pc.binary_join_element_wise("name of ", ids, ""),
        "group": pc.binary_join_element_wise("g", groups, ""),
        "weight": rng.uniform(1, 100, count),
    }
    return pa.table(keys | columns).combine_chunks()


class Join:
    """A dimension, the columns that facts and it are joined on, and how its columns are called."""

    def __init__(self, table, on, names):
        self.table, self.on, self.names = table, on, names

    def columns(self, source):
        """What is selected of it."""
        return [f'{source}."{column}" AS "{name}"' for column, name in self.names.items()]


NAMES = {"name": "name", "group": "group", "weight": "weight"}


def data(kind, count, options):
    """The joins, the facts and the answer."""
    rng = np.random.default_rng(SEED)
    if kind == "star":
        return star(rng, options)
    # Keys past `count` are those that the dimension has not.
    keys = key_columns(rng, kind, count if options.match == 1 else 2 * count)
    table = dimension(rng, {name: column.slice(0, count) for name, column in keys.items()}, count)

    picked = rng.integers(0, count, options.facts)
    is_match = np.ones(options.facts, bool)
    if options.match < 1:
        is_match = rng.random(options.facts) < options.match
    at = pa.array(np.where(is_match, picked, picked + count))
    facts = pa.table(
        {name: column.take(at) for name, column in keys.items()}
        | {
            "quantity": rng.integers(1, 100, options.facts),
            "amount": rng.uniform(0, 1000, options.facts),
        }
    )
    weight = table.column("weight").to_numpy()
    answer = (options.facts, int(is_match.sum()), float(weight[picked[is_match]].sum()))
    return [Join(table, {name: name for name in keys}, NAMES)], facts.combine_chunks(), answer


def star(rng, options):
    """Five dimensions, of each a string and a float; `weight` is that of the last."""
    joins, columns = [], {}
    for place, count in enumerate(STAR_ROWS):
        table = dimension(rng, {"key": pa.array(np.arange(count))}, count)
        columns[f"key{place}"] = rng.integers(0, count, options.facts)
        last = place == len(STAR_ROWS) - 1
        names = {"name": f"name{place}", "weight": "weight" if last else f"weight{place}"}
        joins.append(Join(table.drop(["group"]), {f"key{place}": "key"}, names))
    weight = joins[-1].table.column("weight").to_numpy()
    total = float(weight[columns[f"key{place}"]].sum())
    return joins, pa.table(columns), (options.facts, options.facts, total)


def select(joins):
    """The join in SQL, of tables `f`, `d0`, `d1` and so on."""
    columns = ["f.*"]
    clauses = []
    for place, join in enumerate(joins):
        columns += join.columns(f"d{place}")
        on = (f'f."{fact}" = d{place}."{key}"' for fact, key in join.on.items())
        clauses.append(f"LEFT JOIN d{place} ON {' AND '.join(on)}")
    return f"SELECT {', '.join(columns)} FROM f {' '.join(clauses)}"


def renamed(join):
    """A dimension with its columns under the names that they come out with."""
    return join.table.rename_columns([join.names.get(name, name) for name in join.table.column_names])


def write(table, path):
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


# The engines. A way is a function that gives the time in seconds and the answer: rows, matches, sum.


def timed(run, answer):
    def way():
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        return seconds, answer(result)

    return way


def answer_arrow(table):
    weight = table.column("weight")
    if pa.types.is_dictionary(weight.type):
        weight = weight.cast(weight.type.value_type)
    return len(table), len(weight) - weight.null_count, pc.sum(weight).as_py()


def answer_polars(frame):
    assert frame.width >= 6
    weight = frame["weight"]
    return len(frame), len(weight) - weight.null_count(), weight.sum()


class DuckDB:
    def __init__(self, joins, facts, options):
        self.con = duckdb.connect()
        self.run(f"SET threads = {options.threads}")
        self.run("SET preserve_insertion_order = false")
        tables = [(f"d{place}", join.table) for place, join in enumerate(joins)]
        for name, table in [*tables, ("f", facts)]:
            self.con.register("given", table)
            self.run(f"CREATE TABLE {name} AS SELECT * FROM given")
            self.con.unregister("given")
        self.query = select(joins)

    def run(self, sql):
        # Fetched, because a statement may go on behind `execute`.
        return self.con.execute(sql).fetchall()

    def table(self):
        # The old result is dropped before the clock starts.
        self.run("DROP TABLE IF EXISTS r")
        start = time.perf_counter()
        self.run(f"CREATE OR REPLACE TEMP TABLE r AS {self.query}")
        seconds = time.perf_counter() - start
        answer = self.run("SELECT count(*), count(weight), sum(weight) FROM r")[0]
        self.run("DROP TABLE r")
        return seconds, answer

    def ways(self):
        def arrow():
            return self.con.sql(self.query).to_arrow_table()

        return {"table": self.table, "Arrow": timed(arrow, answer_arrow)}


def polars_ways(joins, facts):
    facts = pl.from_arrow(facts)
    given = [(pl.from_arrow(renamed(join)), list(join.on), list(join.on.values())) for join in joins]

    def eager():
        result = facts
        for dim, left, right in given:
            result = result.join(dim, left_on=left, right_on=right, how="left")
        return result

    def streaming():
        result = facts.lazy()
        for dim, left, right in given:
            result = result.join(dim.lazy(), left_on=left, right_on=right, how="left")
        return result.collect(engine="streaming")

    return {"eager": timed(eager, answer_polars), "streaming": timed(streaming, answer_polars)}


def datafusion_ways(joins, facts, options):
    ctx = datafusion.SessionContext(
        datafusion.SessionConfig().with_target_partitions(options.threads)
    )
    tables = [(f"d{place}", join.table) for place, join in enumerate(joins)]
    for name, table in [*tables, ("f", facts)]:
        batches = table.to_batches(max_chunksize=64 * 1024)
        parts = [batches[part :: options.threads] for part in range(options.threads)]
        ctx.register_record_batches(name, [part for part in parts if part])
    query = select(joins)

    def run():
        return ctx.sql(query).collect()

    return {"SQL": timed(run, lambda batches: answer_arrow(pa.Table.from_batches(batches)))}


def pyarrow_ways(joins, facts):
    given = [(renamed(join), list(join.on), list(join.on.values())) for join in joins]

    def run():
        result = facts
        for dim, left, right in given:
            result = result.join(
                dim, keys=left, right_keys=right, join_type="left outer", use_threads=True
            )
        return result

    return {"Table.join": timed(run, answer_arrow)}


class Darner:
    """The program `compare`. Without joins it reads the file of facts."""

    def __init__(self, program, facts, joins, files, options):
        command = [program, facts]
        for place, (join, path) in enumerate(zip(joins, files)):
            on = ", ".join(f"{fact} = {key}" for fact, key in join.on.items())
            columns = ", ".join(f"{column} as {name}" for column, name in join.names.items())
            command += [path, f"d as d{place} on {on} select {columns}"]
        command += ["--threads", str(options.threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = self.read() if joins else None

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the program `compare` stopped")
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.read()

    def join(self, encoding):
        got = self.ask(encoding)
        return got["ns"] / 1e9, (got["rows"], got["matched"], got["sum"])

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def check(engine, got, expected):
    rows, matched, total = expected
    # Not `>`: a sum that is no number must fail too.
    if got[:2] != (rows, matched) or not abs(got[2] - total) <= 1e-6 * abs(total):
        sys.exit(f"{engine} gives a wrong answer: {tuple(got)}, expected {expected}")


def measure(name, program, directory, options):
    """Seconds per engine and way, the seconds of builds, and what Darner says of its index."""
    kind, count = CASES[name]
    joins, facts, expected = data(kind, count, options)
    files = [directory / f"dim{place}.arrow" for place in range(len(joins))]
    for join, path in zip(joins, files):
        write(join.table, path)
    write(facts, directory / "facts.arrow")
    darner = Darner(program, directory / "facts.arrow", joins, files, options)
    ways = {
        (f"Darner {encoding}", ""): lambda encoding=encoding: darner.join(encoding)
        for encoding in ENCODINGS
    }
    peers = {
        "DuckDB": DuckDB(joins, facts, options).ways(),
        "Polars": polars_ways(joins, facts),
        "DataFusion": datafusion_ways(joins, facts, options),
        "pyarrow": pyarrow_ways(joins, facts),
    }
    ways |= {(peer, way): run for peer in PEERS for way, run in peers[peer].items()}
    seconds = {key: [] for key in ways}
    builds = []
    order = np.random.default_rng(SEED)
    for number in range(options.rounds + 1):
        print(f"{name}: round {number} of {options.rounds}", file=sys.stderr)
        # A new order each time: nobody always comes after the same.
        for key in order.permutation(list(ways)).tolist():
            key = tuple(key)
            gc.collect()
            # Threads of the engine before may still give memory back.
            time.sleep(REST_SECONDS)
            # Twice: only then does it find the memory at hand that it gave back after the first.
            for _ in range(2 if number > 0 else 1):
                took, got = ways[key]()
                check(" ".join(key), got, expected)
            if number > 0:
                seconds[key].append(took)
        time.sleep(REST_SECONDS)
        # Twice, as the engines.
        for _ in range(2 if number > 0 else 1):
            took = darner.ask("build")["ns"] / 1e9
        if number > 0:
            builds.append(took)
    darner.close()
    for path in [*files, directory / "facts.arrow"]:
        path.unlink()
    return seconds, builds, darner.built


# From file to file


def write_as(form, table, path):
    if form == "parquet":
        pq.write_table(table, path, compression="zstd", compression_level=1)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=64 * 1024)


def answer_file(form, path):
    if form == "parquet":
        return answer_arrow(pq.read_table(path, columns=["weight"]))
    with pa.memory_map(str(path)) as source:
        return answer_arrow(pa.ipc.open_file(source).read_all().select(["weight"]))


def measure_files(name, darner, directory, options):
    """What engines take, each a process from start to end; and then until the output is on disk."""
    form = FILE_CASES[name]
    [join], facts, expected = data("dense", FILE_ROWS, options)
    dim, fact, store = (directory / file for file in (f"dim.{form}", f"facts.{form}", "store"))
    write_as(form, join.table, dim)
    write_as(form, facts, fact)
    del join, facts
    base = [darner, "--quiet", "--threads", str(options.threads), "--store", store]

    def run(command):
        start = time.perf_counter()
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{command[0]} failed: {done.stderr}")
        return time.perf_counter() - start

    load = run([*base, "load", "d", dim, "--key", "key"])
    out = directory / f"out.{form}"
    script = Path(__file__).resolve().parent / "files.py"
    commands = {
        peer: [sys.executable, script, peer, form, dim, fact, out, options.threads]
        for peer in PEERS
    }
    for encoding in ENCODINGS:
        command = ["enrich", fact, "--with", "d on key", "--encoding", encoding, "-o", out]
        commands[f"Darner {encoding}"] = [*base, *command]
    ended, synced = ({engine: [] for engine in commands} for _ in range(2))
    order = np.random.default_rng(SEED)
    for number in range(options.rounds + 1):
        print(f"{name}: round {number} of {options.rounds}", file=sys.stderr)
        for engine in order.permutation(list(commands)).tolist():
            out.unlink(missing_ok=True)
            # What others have written is on its way to the disk.
            os.sync()
            took = run(commands[engine])
            start = time.perf_counter()
            with open(out, "rb") as written:
                os.fsync(written.fileno())
            took_on_disk = took + time.perf_counter() - start
            check(engine, answer_file(form, out), expected)
            if number > 0:
                ended[engine].append(took)
                synced[engine].append(took_on_disk)
    for path in (dim, fact, out):
        path.unlink()
    shutil.rmtree(store)

    def result(name, seconds):
        rates = {engine: options.facts / statistics.median(times) / 1e6 for engine, times in seconds.items()}
        return {"name": name, "rates": rates, "load_ms": load * 1e3}

    return [result(name, ended), result(f"{name}, on disk", synced)]


# Files that are read


def load_ways(path, options):
    """Each gives seconds and the answer: rows, and the sum of each column."""
    pool = ThreadPoolExecutor(options.threads)

    def arrow():
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
            return len(table), [got.as_py() for got in pool.map(pc.sum, table.columns)]

    def eager():
        frame = pl.read_ipc(path)
        return len(frame), list(frame.sum().row(0))

    def streaming():
        query = pl.scan_ipc(path).select(pl.len(), pl.all().sum())
        rows, *sums = query.collect(engine="streaming").row(0)
        return rows, sums

    ctx = datafusion.SessionContext(
        datafusion.SessionConfig().with_target_partitions(options.threads)
    )
    ctx.sql(f"CREATE EXTERNAL TABLE t STORED AS ARROW LOCATION '{path}'")

    def sql():
        [row] = ctx.sql("SELECT count(*), sum(key), sum(quantity), sum(amount) FROM t").to_pylist()
        rows, *sums = row.values()
        return rows, sums

    ways = {
        ("Polars", "eager"): eager,
        ("Polars", "streaming"): streaming,
        ("DataFusion", "SQL"): sql,
        ("pyarrow", "mapped"): arrow,
    }
    return {key: timed(run, lambda answer: answer) for key, run in ways.items()}


def measure_load(name, program, directory, options):
    """Rates per engine, and the size of the file."""
    rng = np.random.default_rng(SEED)
    columns = {
        "key": rng.integers(0, 1 << 40, options.facts),
        "quantity": rng.integers(1, 100, options.facts),
        "amount": rng.uniform(0, 1000, options.facts),
    }
    table, path = pa.table(columns), directory / "load.arrow"
    codec = pa.ipc.IpcWriteOptions(compression=LOAD_CASES[name])
    with pa.ipc.new_file(path, table.schema, options=codec) as writer:
        writer.write_table(table, max_chunksize=64 * 1024)
    sums = [column.sum() for column in columns.values()]
    bits = sum(int(column.view(np.uint64).sum()) for column in columns.values()) % (1 << 64)
    darner = Darner(program, path, [], [], options)

    def read():
        got = darner.ask("load")
        # It adds up all columns together, the fractions' bits.
        is_right = (got["rows"], got["sum"]) == (options.facts, bits)
        return got["ns"] / 1e9, (got["rows"], sums if is_right else [])

    ways = {("Darner", ""): read, **load_ways(path, options)}
    seconds = {key: [] for key in ways}
    order = np.random.default_rng(SEED)
    for round_number in range(options.rounds + 1):
        print(f"{name}: round {round_number} of {options.rounds}", file=sys.stderr)
        for key in map(tuple, order.permutation(list(ways)).tolist()):
            gc.collect()
            time.sleep(REST_SECONDS)
            for _ in range(2 if round_number > 0 else 1):
                took, (rows, got) = ways[key]()
                is_right = len(got) == len(sums) and np.allclose(got, sums, rtol=1e-9, atol=0)
                if rows != options.facts or not is_right:
                    sys.exit(f"{' '.join(key)} gives a wrong answer: {rows} rows, {got}")
            if round_number > 0:
                seconds[key].append(took)
    darner.close()
    num_bytes = path.stat().st_size
    path.unlink()
    rates = {}
    for (engine, _), times in seconds.items():
        rate = options.facts / statistics.median(times) / 1e6
        rates[engine] = max(rate, rates.get(engine, 0))
    return {"name": name, "rates": rates, "mb": num_bytes / 1e6}


# The report


def summary(name, seconds, builds, built, options):
    rates, taken = {}, {}
    for (engine, way), times in seconds.items():
        rate = options.facts / statistics.median(times) / 1e6
        if rate > rates.get(engine, 0):
            rates[engine], taken[engine] = rate, way
    return {
        "name": name,
        "rates": rates,
        "ways": taken,
        "build_ms": statistics.median(builds) * 1e3,
        "layout": built["layout"],
        "index_mb": built["index_bytes"] / 1e6,
    }


def machine():
    model, memory = platform.processor() or "unknown", ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
        first = Path("/proc/meminfo").read_text().splitlines()[0]
        memory = f", {int(first.split()[1]) / 1e6:.0f} GB"
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores{memory}"


def versions():
    libraries = {
        "DuckDB": duckdb,
        "Polars": pl,
        "DataFusion": datafusion,
        "pyarrow": pa,
        "numpy": np,
    }
    listed = [f"{name} {library.__version__}" for name, library in libraries.items()]
    return ", ".join([*listed, f"Python {platform.python_version()}"])


def number(rate):
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def table(results, last, milliseconds):
    heads = ["case", *PEERS, *(f"Darner {encoding}" for encoding in ENCODINGS), last]
    lines = [" | ".join(heads), " | ".join(["---"] + ["--:"] * (len(heads) - 1))]
    for result in results:
        rates = result["rates"]
        best = max(rates[peer] for peer in PEERS)
        cells = [result["name"]]
        for peer in PEERS:
            bold = "**" if rates[peer] == best else ""
            cells.append(f"{bold}{number(rates[peer])}{bold}")
        for encoding in ENCODINGS:
            rate = rates[f"Darner {encoding}"]
            cells.append(f"{number(rate)} ({rate / best:.1f}×)")
        cells.append(f"{result[milliseconds]:.2f} ms")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def loads_part(results, options):
    heads = ["case", "file", *LOAD_PEERS, "Darner"]
    lines = [" | ".join(heads), " | ".join(["---"] + ["--:"] * (len(heads) - 1))]
    for result in results:
        rates = result["rates"]
        best = max(rates[peer] for peer in LOAD_PEERS)
        cells = [result["name"], f"{result['mb']:.0f} MB"]
        for peer in LOAD_PEERS:
            bold = "**" if rates[peer] == best else ""
            cells.append(f"{bold}{number(rates[peer])}{bold}")
        cells.append(f"{number(rates['Darner'])} ({rates['Darner'] / best:.1f}×)")
        lines.append(" | ".join(cells))
    rows = (f"| {line} |" for line in lines)
    return ["## Loads", "", COUNTED_LOADS.format(rounds=options.rounds), *rows, ""]


def report(results, files, loads, options):
    notes = []
    for result in results:
        ways = ", ".join(f"{peer} {result['ways'][peer]}" for peer in ("DuckDB", "Polars"))
        notes.append(
            f"- {result['name']}: {ways}; index {result['layout']}, {result['index_mb']:.2f} MB"
        )
    return "\n".join(
        [
            "# Joins, side by side",
            "",
            f"Machine: {machine()}. Threads: {options.threads}.",
            f"Versions: {versions()}.",
            f"Facts: {options.facts:,} rows, {options.match:.0%} with a match.",
            "",
            *(memory_part(results, notes, options) if results else []),
            *(files_part(files, options) if files else []),
            *(loads_part(loads, options) if loads else []),
        ]
    )


def memory_part(results, notes, options):
    return [
        COUNTED.format(rounds=options.rounds),
        table(results, "Darner build", "build_ms"),
        "",
        "The way taken, and Darner's index:",
        "",
        *notes,
        "",
    ]


def files_part(results, options):
    return [
        "## From file to file",
        "",
        COUNTED_FILES.format(rounds=options.rounds, rows=FILE_ROWS),
        table(results, "Darner load", "load_ms"),
        "",
    ]


def chart(results, options):
    """Bars of all engines, case by case, each case to the scale of its fastest."""
    colours = ["#b8b8b8", "#a0a0a0", "#888888", "#707070", "#1f6fb2", "#3f94d6", "#7cbdec"]
    engines = PEERS + [f"Darner {encoding}" for encoding in ENCODINGS]
    bar, left, wide = 16, 130, 420
    block = len(engines) * bar + 34
    height = 40 + block * len(results)
    title = f"Million fact rows per second, {options.threads} threads (each case to its own scale)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + wide + 90}" height="{height}" '
        f'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="22" font-size="14">{title}</text>',
    ]
    for place, result in enumerate(results):
        top = 40 + place * block
        parts.append(f'<text x="10" y="{top + 14}" font-weight="bold">{result["name"]}</text>')
        most = max(result["rates"].values())
        for row, (engine, colour) in enumerate(zip(engines, colours)):
            rate = result["rates"][engine]
            y = top + 20 + row * bar
            length = max(1, rate / most * wide)
            parts.append(
                f'<text x="{left - 6}" y="{y + 12}" text-anchor="end">{engine}</text>'
                f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{bar - 3}" fill="{colour}"/>'
                f'<text x="{left + length + 5:.1f}" y="{y + 12}">{number(rate)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def find_program(*names):
    root = Path(__file__).resolve().parents[2]
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    found = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    program = Path(found["target_directory"], "release", *names)
    if not program.exists():
        sys.exit(f"not built: {program} (see README.md)")
    return program


def main():
    options = OPTIONS
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
    results, files, loads = [], [], []

    def tell():
        """What is known so far: an error in one case does not lose the others."""
        text = report(results, files, loads, options)
        if options.output:
            options.output.write_text(text)
        if options.chart and results + files:
            options.chart.write_text(chart(results + files, options))
        return text

    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for name in CASES:
            if options.cases in name:
                program = options.program or find_program("examples", "compare")
                measured = measure(name, program, Path(directory), options)
                results.append(summary(name, *measured, options))
                gc.collect()
                tell()
        for name in FILE_CASES:
            if options.cases in name:
                darner = options.darner or find_program("darner")
                files.extend(measure_files(name, darner, Path(directory), options))
                tell()
        for name in LOAD_CASES:
            if options.cases in name:
                program = options.program or find_program("examples", "compare")
                loads.append(measure_load(name, program, Path(directory), options))
                tell()
    print(tell())


if __name__ == "__main__":
    main()
