"""Random lives of materialized views, against DuckDB.

Views with every aggregate are made over files, over a table of the store, and over rows that a program pushes. Files
arrive, rows change, refreshes and pushes are killed. Whenever a view is read, DuckDB computes its query from all that the
view says it has counted: the rows must be the same. So must be those of the query as plain SQL.

    cargo build --release -p darner -p darner-sql --example push --bin darner
    venv/bin/python benches/compare/views.py --darner PATH --push PATH --seconds 300 --seed 1
"""

import argparse
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

# How an aggregate is called by Darner and by DuckDB, and how its values are compared.
AGGREGATES = [
    ("count(*)", "count(*)", "same"),
    ("count(i)", "count(i)", "same"),
    ("sum(i)", "sum(i)", "same"),
    ("sum(d)", "sum(d)", "same"),
    ("sum(f)", "sum(f)", "near"),
    ("avg(i)", "avg(i)", "near"),
    ("avg(f)", "avg(f)", "near"),
    ("min(s)", "min(s)", "same"),
    ("max(s)", "max(s)", "same"),
    ("min(t)", "min(t)", "same"),
    ("max(d)", "max(d)", "same"),
    ("max(f)", "max(f)", "same"),
    ("stddev(f)", "stddev_samp(f)", "near"),
    ("stddev_pop(f)", "stddev_pop(f)", "near"),
    ("var_samp(f)", "var_samp(f)", "near"),
    ("var_pop(f)", "var_pop(f)", "near"),
    ("bool_and(b)", "bool_and(b)", "same"),
    ("bool_or(b)", "bool_or(b)", "same"),
    ("bit_and(i)", "bit_and(i)", "same"),
    ("bit_or(i)", "bit_or(i)", "same"),
    ("bit_xor(i)", "bit_xor(i)", "same"),
    ("first_value(s ORDER BY id)", "first(s ORDER BY id)", "same"),
    ("last_value(i ORDER BY id)", "last(i ORDER BY id)", "same"),
    ("count(DISTINCT s)", "count(DISTINCT s)", "same"),
    ("count(DISTINCT i)", "count(DISTINCT i)", "same"),
    ("approx_distinct(id)", "count(DISTINCT id)", "about"),
    ("approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY f)", "[min(f), max(f)]", "within"),
    ("array_agg(i)", "array_agg(i)", "bag"),
    ("sum(i) FILTER (WHERE b)", "sum(i) FILTER (WHERE b)", "same"),
    ("count(*) FILTER (WHERE s LIKE 'a%')", "count(*) FILTER (WHERE s LIKE 'a%')", "same"),
    ("max(i) + count(*)", "max(i) + count(*)", "same"),
]

GROUPS = ["g", "date_trunc('day', t)", "g, s", "upper(s), b", "d", ""]

# Of facts that are joined with a dimension.
JOINED_GROUPS = ["label", "label, b", ""]

JOINS = ["JOIN", "LEFT JOIN"]

HAVING = ["", " HAVING count(*) > 2", " HAVING sum(i) > 0"]

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("g", pa.int32()),
        pa.field("s", pa.string()),
        pa.field("i", pa.int64()),
        pa.field("f", pa.float64()),
        pa.field("d", pa.decimal128(12, 2)),
        pa.field("t", pa.timestamp("us")),
        pa.field("b", pa.bool_()),
    ]
)


class Different(Exception):
    """Rows of a view that are not those of DuckDB."""


def make_rows(rng, ids):
    """Facts with these identities: few groups, many nulls."""

    def some(value):
        return None if rng.random() < 0.15 else value

    rows = []
    for number in ids:
        rows.append(
            {
                "id": number,
                "g": some(rng.randrange(7)),
                "s": some(rng.choice(["", "a", "ab", "b", "é", "zz", "a long word, longer than a few bytes"])),
                "i": some(rng.randrange(-50, 50)),
                # Of few digits, so that sums are the same in any order.
                "f": some(rng.randrange(-800, 800) / 8),
                "d": some(Decimal(rng.randrange(-9999, 9999)) / 100),
                "t": some(datetime(2024, 1, 1) + timedelta(hours=rng.randrange(120), microseconds=rng.randrange(10**6))),
                "b": some(rng.random() < 0.5),
            }
        )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


class Query:
    """A random query, in the words of both."""

    def __init__(self, rng):
        join = rng.choice(JOINS) if rng.random() < 0.3 else None
        self.groups = rng.choice(JOINED_GROUPS if join else GROUPS)
        self.from_ = lambda facts: f"{facts} AS f {join} dims ON f.g = dims.code" if join else facts
        self.having = rng.choice(HAVING)
        chosen = rng.sample(AGGREGATES, rng.randrange(1, 9))
        names = [f"a{place}" for place in range(len(chosen))]
        groups = split_groups(self.groups)
        self.num_groups = len(groups)
        keys = [f"{group} AS k{place}" for place, group in enumerate(groups)]
        mine = keys + [f"{call} AS {name}" for (call, _, _), name in zip(chosen, names)]
        theirs = keys + [f"{call} AS {name}" for (_, call, _), name in zip(chosen, names)]
        self.ways = [way for _, _, way in chosen]
        by = f" GROUP BY {self.groups}" if groups else ""
        self.mine = lambda facts: f"SELECT {', '.join(mine)} FROM {self.from_(facts)}{by}{self.having}"
        self.theirs = lambda facts: f"SELECT {', '.join(theirs)} FROM {self.from_(facts)}{by}{self.having}"


def split_groups(text):
    """Splits at commas that are in no parentheses."""
    parts, depth, part = [], 0, ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += char
    return parts + [part.strip()] if part.strip() else parts


def near(mine, theirs):
    if mine is None or theirs is None:
        return mine is theirs
    mine, theirs = float(mine), float(theirs)
    return math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-6)


def agrees(way, mine, theirs):
    if way == "near":
        return near(mine, theirs)
    if way == "about":
        return mine is not None and abs(mine - theirs) <= max(2, theirs * 0.06)
    if way == "within":
        low, high = theirs
        return mine is None if low is None else mine is not None and low <= mine <= high
    if way == "bag":
        order = lambda value: (value is None, value or 0)
        return sorted(mine, key=order) == sorted(theirs, key=order)
    return mine == theirs


def rows_of(table, num_groups):
    """Rows by their groups."""
    columns = [column.to_pylist() for column in table.columns]
    rows = {}
    for row in zip(*columns):
        key = tuple(map(repr, row[:num_groups]))
        if key in rows:
            raise Different(f"group twice: {key}")
        rows[key] = row[num_groups:]
    return rows


class Life:
    """One view from its making to its end."""

    def __init__(self, args, rng, directory):
        self.darner, self.push, self.rng, self.dir = args.darner, args.push, rng, directory
        self.store = directory / "store"
        self.query = Query(rng)
        self.next_id = 0
        self.num_reads = self.num_kills = 0
        # Some groups have no row in the dimension, and some one without a name.
        self.dims = pa.table(
            {"code": pa.array([0, 1, 2, 4, 5], pa.int32()), "label": pa.array(["low", "one", "low", None, "high"])}
        )
        path = directory / "dims.parquet"
        pa.parquet.write_table(self.dims, path)
        self.run("load", "dims", path, "--key", "code")

    def command(self, *args):
        return [self.darner, "--store", str(self.store), *map(str, args)]

    def run(self, *args):
        done = subprocess.run(self.command(*args), capture_output=True, text=True)
        if done.returncode != 0:
            raise Different(f"{args}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def kill(self, command, seconds):
        """Starts something and kills it after at most a time. Whether it was killed."""
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            _, error = running.communicate(timeout=self.rng.random() * seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.communicate()
            self.num_kills += 1
            return True
        if running.returncode != 0:
            raise Different(f"{command}: exit {running.returncode}: {error.decode()}")
        return False

    def new_rows(self, least=0, most=400):
        count = self.rng.randrange(least, most)
        self.next_id += count
        return make_rows(self.rng, range(self.next_id - count, self.next_id))

    def read(self, query):
        """The rows of a query by Darner."""
        out = self.dir / "out.arrow"
        self.run("sql", f"COPY ({query}) TO '{out}' STORED AS ARROW")
        with pa.memory_map(str(out)) as file:
            table = pa.ipc.open_file(file).read_all()
        found = rows_of(table, self.query.num_groups)
        del table
        out.unlink()
        return found

    def check(self, counted, what):
        """Compares the view, and the query over `what` as plain SQL, with DuckDB's over these rows."""
        self.num_reads += 1
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("counted", counted)
        connection.register("dims", self.dims)
        answer = connection.sql(self.query.theirs("counted")).to_arrow_table()
        expected = rows_of(answer, self.query.num_groups)
        found = [("view", self.read("SELECT * FROM v"))]
        if what is not None:
            found.append(("plain SQL", self.read(self.query.mine(what))))
        for name, rows in found:
            if rows.keys() != expected.keys():
                raise Different(f"{name}: groups {rows.keys() ^ expected.keys()} are in one of both only")
            for key, values in rows.items():
                for place, (way, mine, theirs) in enumerate(zip(self.query.ways, values, expected[key])):
                    if not agrees(way, mine, theirs):
                        raise Different(f"{name}: group {key} a{place}: {mine!r}, DuckDB {theirs!r}")

    def told(self):
        return json.loads(self.run("view", "show", "v", "--json"))


class Files(Life):
    """Files arrive; refreshes find them."""

    def live(self, num_steps):
        self.facts = self.dir / "facts"
        self.facts.mkdir()
        self.num_files = 0
        self.arrive()
        create = ["view", "create", "v", self.query.mine(f"'{self.facts}/*.parquet'"), "--if-not-exists"]
        self.kill(self.command(*create), 0.2)
        self.run(*create)
        for _ in range(num_steps):
            for _ in range(self.rng.choice([0, 1, 1, 2, 5])):
                self.arrive()
            if self.rng.random() < 0.5:
                self.kill(self.command("view", "refresh", "v"), 0.15)
                self.compare()
            self.run("view", "refresh", "v")
            counted = self.compare()
            if counted != self.num_files:
                raise Different(f"{counted} of {self.num_files} files are counted")
        self.run("view", "verify", "v")

    def arrive(self):
        pa.parquet.write_table(self.new_rows(), self.facts / f"{self.num_files:03}.parquet")
        self.num_files += 1

    def compare(self):
        files = self.told()["files"]
        tables = [pa.parquet.read_table(file) for file in files]
        is_all = len(files) == self.num_files
        self.check(pa.concat_tables([SCHEMA.empty_table(), *tables]), f"'{self.facts}/*.parquet'" if is_all else None)
        return len(files)


class Pushed(Life):
    """A program pushes rows, is killed, and goes on."""

    def live(self, num_steps):
        path, num_rows = self.dir / "facts.arrow", 0
        batches = []
        for _ in range(num_steps):
            batches += self.new_rows(1).to_batches(max_chunksize=self.rng.randrange(1, 60))
            with pa.ipc.new_file(str(path), SCHEMA) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            rows = pa.Table.from_batches(batches)
            command = [self.push, str(self.store), "v", self.query.mine("facts"), str(self.rng.randrange(1, 90)), str(path)]
            while self.rng.random() < 0.6:
                self.kill(command, 0.3)
                if self.has_view():
                    counted = self.told()["pushed_rows"]
                    if counted < num_rows:
                        raise Different(f"{counted} rows are counted, and {num_rows} were before")
                    self.check(rows.slice(0, counted), None)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise Different(f"{command}: exit {done.returncode}: {done.stderr}")
            num_rows = self.told()["pushed_rows"]
            if num_rows != rows.num_rows:
                raise Different(f"{num_rows} of {rows.num_rows} rows are counted")
            self.check(rows, f"'{path}'")


    def has_view(self):
        """Whether a program that was killed has come so far."""
        done = subprocess.run(self.command("view", "show", "v"), capture_output=True, text=True)
        if done.returncode not in (0, 3):
            raise Different(f"exit {done.returncode}: {done.stderr}")
        return done.returncode == 0


class Changes(Life):
    """Rows of a table come, change and go."""

    def live(self, num_steps):
        rows = {row["id"]: row for row in self.new_rows(1).to_pylist()}
        self.load(list(rows.values()))
        self.run("view", "create", "v", self.query.mine("facts"))
        for _ in range(num_steps):
            for _ in range(self.rng.randrange(3)):
                new = self.new_rows(1, 100).to_pylist()
                old = self.rng.sample(sorted(rows), min(len(rows), self.rng.randrange(30)))
                changed = make_rows(self.rng, old).to_pylist()
                self.load(new + changed)
                rows.update((row["id"], row) for row in new + changed)
                gone = self.rng.sample(sorted(rows), min(len(rows), self.rng.randrange(1, 60)))
                self.run("delete", "facts", *gone)
                for number in gone:
                    del rows[number]
            if self.rng.random() < 0.5:
                self.kill(self.command("view", "refresh", "v"), 0.15)
            self.run("view", "refresh", "v")
            self.check(pa.Table.from_pylist(list(rows.values()), schema=SCHEMA), "facts")
        self.run("view", "verify", "v")

    def load(self, rows):
        path = self.dir / "load.parquet"
        pa.parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
        self.run("load", "facts", path, "--key", "id")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--darner", required=True)
    parser.add_argument("--push", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    seed, num_reads, num_kills, num_lives = args.seed, 0, 0, 0
    while time.monotonic() < end:
        kind = (Files, Pushed, Changes)[seed % 3]
        directory = Path(tempfile.mkdtemp(prefix="darner-views-"))
        life = kind(args, random.Random(seed), directory)
        try:
            life.live(args.steps)
        except Different as different:
            print(f"seed {seed}: {kind.__name__}: {life.query.mine('facts')}\n{different}\nleft in {directory}")
            sys.exit(1)
        shutil.rmtree(directory)
        num_reads, num_kills, num_lives = num_reads + life.num_reads, num_kills + life.num_kills, num_lives + 1
        seed += 1
    print(f"seeds {args.seed} to {seed - 1}: {num_lives} views, {num_reads} comparisons, {num_kills} kills, nothing differs")


if __name__ == "__main__":
    main()
