#!/usr/bin/env python3
"""Left joins in memory: Darner beside DuckDB, Polars, DataFusion and pyarrow, on the same data.

Every answer of every run is checked. How to run it is in README.md.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
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
    "int64 sparse 1M": ("sparse", 1_000_000),
    "utf8 1K": ("utf8", 1_000),
    "utf8 100K": ("utf8", 100_000),
    "utf8 1M": ("utf8", 1_000_000),
    "int64 + utf8 100K": ("composite", 100_000),
}
COUNTED = """\
What is counted: a left join of all fact rows that adds three columns (name, group, weight), with the
whole result kept in memory; median of {rounds} rounds after a warm-up, the engines taking turns
in a new order each round, half a second apart.

- The numbers are million fact rows per second. In brackets: that number by the best peer's.
- Darner's dimension is built before and kept. Its build time is the last column. Views of its strings
  are prepared once, in the warm-up. The peers build their hash table in each query.
- Darner's fact columns come out shared, not copied. The peers are free to do so too.
- DuckDB: a temporary table over its own tables, or an Arrow table. Polars: eager, or lazy with the
  streaming engine. The better way is taken, and named under the table.
- DuckDB need not keep the order of rows (`preserve_insertion_order=false`).
- Rows, matches and the sum of `weight` of every run are checked against those that made the data.
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
    parser.add_argument("--output", type=Path, help="write the report here, as Markdown")
    parser.add_argument("--chart", type=Path, help="write a bar chart here, as SVG")
    options = parser.parse_args()
    if not any(options.cases in name for name in CASES):
        parser.error(f"no case has {options.cases!r} in its name: {', '.join(CASES)}")
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
    if kind == "sparse":
        return {"key": pa.array(rng.permutation(count) * 1000)}
    if kind == "utf8":
        return {"key": texts(rng, count, 8, 40)}
    # Neither column is a key alone.
    codes = pa.array([f"c{code:04d}" for code in range(count // 100 + 1)])
    ids = np.arange(count)
    return {"key": pa.array(ids % 1000), "code": codes.take(pa.array(ids // 1000))}


def data(kind, count, options):
    """The dimension, the facts and the answer."""
    rng = np.random.default_rng(SEED)
    # Keys past `count` are those that the dimension has not.
    keys = key_columns(rng, kind, count if options.match == 1 else 2 * count)
    ids = pa.array(np.arange(count)).cast(pa.string())
    groups = pa.array(np.arange(count) % 97).cast(pa.string())
    weight = rng.uniform(1, 100, count)
    dim = pa.table(
        {name: column.slice(0, count) for name, column in keys.items()}
        | {
            "name": pc.binary_join_element_wise("name of ", ids, ""),
            "group": pc.binary_join_element_wise("g", groups, ""),
            "weight": weight,
        }
    )

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
    answer = (options.facts, int(is_match.sum()), float(weight[picked[is_match]].sum()))
    return dim.combine_chunks(), facts.combine_chunks(), answer


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
    return len(table), len(weight) - weight.null_count, pc.sum(weight).as_py()


def answer_polars(frame):
    assert frame.width >= 6
    weight = frame["weight"]
    return len(frame), len(weight) - weight.null_count(), weight.sum()


class DuckDB:
    def __init__(self, dim, facts, on, options):
        self.con = duckdb.connect()
        self.run(f"SET threads = {options.threads}")
        self.run("SET preserve_insertion_order = false")
        for name, table in (("d", dim), ("f", facts)):
            self.con.register("given", table)
            self.run(f"CREATE TABLE {name} AS SELECT * FROM given")
            self.con.unregister("given")
        using = ", ".join(f'"{name}"' for name in on)
        self.query = f'SELECT f.*, d.name, d."group", d.weight FROM f LEFT JOIN d USING ({using})'

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


def polars_ways(dim, facts, on):
    dim, facts = pl.from_arrow(dim), pl.from_arrow(facts)

    def eager():
        return facts.join(dim, on=on, how="left")

    def streaming():
        return facts.lazy().join(dim.lazy(), on=on, how="left").collect(engine="streaming")

    return {"eager": timed(eager, answer_polars), "streaming": timed(streaming, answer_polars)}


def datafusion_ways(dim, facts, on, options):
    ctx = datafusion.SessionContext(
        datafusion.SessionConfig().with_target_partitions(options.threads)
    )
    for name, table in (("d", dim), ("f", facts)):
        batches = table.to_batches(max_chunksize=64 * 1024)
        parts = [batches[part :: options.threads] for part in range(options.threads)]
        ctx.register_record_batches(name, [part for part in parts if part])
    using = ", ".join(f'"{name}"' for name in on)
    query = f'SELECT f.*, d.name, d."group", d.weight FROM f LEFT JOIN d USING ({using})'

    def run():
        return ctx.sql(query).collect()

    return {"SQL": timed(run, lambda batches: answer_arrow(pa.Table.from_batches(batches)))}


def pyarrow_ways(dim, facts, on):
    def run():
        return facts.join(dim, keys=on, join_type="left outer", use_threads=True)

    return {"Table.join": timed(run, answer_arrow)}


class Darner:
    def __init__(self, program, dim, facts, on, options):
        spec = f"d on {', '.join(on)}"
        command = [program, dim, facts, spec, "--threads", str(options.threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.built = self.read()

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
    dim, facts, expected = data(kind, count, options)
    on = ["key", "code"] if kind == "composite" else ["key"]
    files = [directory / "dim.arrow", directory / "facts.arrow"]
    for table, path in zip((dim, facts), files):
        write(table, path)
    darner = Darner(program, *files, on, options)
    ways = {
        (f"Darner {encoding}", ""): lambda encoding=encoding: darner.join(encoding)
        for encoding in ENCODINGS
    }
    peers = {
        "DuckDB": DuckDB(dim, facts, on, options).ways(),
        "Polars": polars_ways(dim, facts, on),
        "DataFusion": datafusion_ways(dim, facts, on, options),
        "pyarrow": pyarrow_ways(dim, facts, on),
    }
    ways |= {(peer, way): run for peer in PEERS for way, run in peers[peer].items()}
    seconds = {key: [] for key in ways}
    builds = []
    order = np.random.default_rng(SEED)
    for number in range(options.rounds + 1):
        print(f"{name}: round {number} of {options.rounds}", file=sys.stderr)
        # A new order each time: who comes after a run of its own kind finds memory at hand.
        for key in order.permutation(list(ways)).tolist():
            key = tuple(key)
            gc.collect()
            # Threads of the engine before may still give memory back.
            time.sleep(REST_SECONDS)
            took, got = ways[key]()
            check(" ".join(key), got, expected)
            if number > 0:
                seconds[key].append(took)
        took = darner.ask("build")["ns"] / 1e9
        if number > 0:
            builds.append(took)
    darner.close()
    for path in files:
        path.unlink()
    return seconds, builds, darner.built


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


def table(results):
    heads = ["case", *PEERS, *(f"Darner {encoding}" for encoding in ENCODINGS), "Darner build"]
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
        cells.append(f"{result['build_ms']:.2f} ms")
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def report(results, options):
    notes = []
    for result in results:
        ways = ", ".join(f"{peer} {result['ways'][peer]}" for peer in ("DuckDB", "Polars"))
        notes.append(
            f"- {result['name']}: {ways}; index {result['layout']}, {result['index_mb']:.2f} MB"
        )
    return "\n".join(
        [
            "# Joins in memory, side by side",
            "",
            f"Machine: {machine()}. Threads: {options.threads}.",
            f"Versions: {versions()}.",
            f"Facts: {options.facts:,} rows, {options.match:.0%} with a match.",
            "",
            COUNTED.format(rounds=options.rounds),
            table(results),
            "",
            "The way taken, and Darner's index:",
            "",
            *notes,
            "",
        ]
    )


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


def find_program():
    root = Path(__file__).resolve().parents[2]
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"]
    found = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    return Path(found["target_directory"]) / "release" / "examples" / "compare"


def main():
    options = OPTIONS
    program = options.program or find_program()
    if not program.exists():
        sys.exit(f"not built: {program} (see README.md)")
    if options.dir:
        options.dir.mkdir(parents=True, exist_ok=True)
    results = []
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for name in CASES:
            if options.cases in name:
                measured = measure(name, program, Path(directory), options)
                results.append(summary(name, *measured, options))
                gc.collect()
    text = report(results, options)
    print(text)
    if options.output:
        options.output.write_text(text)
    if options.chart:
        options.chart.write_text(chart(results, options))


if __name__ == "__main__":
    main()
