"""Large jobs that are killed again and again, against DuckDB.

Two jobs are written, with their data: quotes enriched with a wide table of securities, of which one in three quotes finds
one; and a star of five dimensions. Each runs with SIGKILLs at random moments, and SIGTERMs among them, until it ends by
itself. Then nothing but whole outputs may be there, and their rows must be those that DuckDB joins from the same files. A
run after that must have nothing left to do.

    cargo build --release
    venv/bin/python benches/compare/jobs.py --darner target/release/darner --seed 1

Sizes are those of the full test; --scale 0.01 makes all of them smaller. The work directory (--dir) takes about 30 GB.
"""

import argparse
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

SECURITIES = 10_000_000
COLUMNS = 95
QUOTES = 1_200_000
QUOTE_FILES = 24

STAR_FACTS = 20_000_000
STAR_FILES = 20
# Rows of each dimension, and the type of its key.
STAR = [(1_000, "BIGINT"), (10_000, "INTEGER"), (100_000, "VARCHAR"), (300_000, "BIGINT"), (1_000_000, "BIGINT")]


def securities(con, path, num_rows):
    """94 columns of several types beside the key. Keys are even numbers, in no order."""
    columns = []
    for number in range(COLUMNS - 1):
        h = f"hash(i * {number * 2 + 7})"
        columns.append(
            [
                f"({h} % 1000000)::BIGINT AS c{number}",
                f"({h} % 10000) / 8.0 AS c{number}",
                f"'s' || ({h} % 5000) AS c{number}",
                f"({h} % 1000)::INTEGER AS c{number}",
                f"CASE WHEN {h} % 10 = 0 THEN NULL ELSE ({h} % 365)::INTEGER + DATE '2020-01-01' END AS c{number}",
                f"({h} % 2 = 0) AS c{number}",
            ][number % 6]
        )
    con.execute(
        f"COPY (SELECT i * 2 AS id, {', '.join(columns)} FROM range({num_rows}) t(i)) "
        f"TO '{path}' (FORMAT parquet, COMPRESSION snappy)"
    )


def quotes(con, directory, num_rows, num_files, num_securities):
    directory.mkdir(parents=True)
    per_file = num_rows // num_files
    for number in range(num_files):
        # One in three has the key of a security; others are odd, or null.
        con.execute(
            f"""COPY (
                SELECT q AS quote, CASE hash(q) % 30 WHEN 29 THEN NULL ELSE
                    (hash(q + 11) % {num_securities})::BIGINT * 2 + (CASE WHEN hash(q) % 3 = 0 THEN 0 ELSE 1 END) END AS security,
                    (hash(q + 5) % 100000) / 64.0 AS price, 'venue ' || hash(q + 3) % 9 AS venue
                FROM range({number * per_file}, {(number + 1) * per_file}) t(q)
            ) TO '{directory}/q{number:03}.parquet' (FORMAT parquet)"""
        )


def star(con, directory, num_facts, num_files, scale):
    directory.mkdir(parents=True)
    keys = []
    for number, (rows, kind) in enumerate(STAR):
        rows = max(10, int(rows * scale))
        key = {"VARCHAR": "'key ' || i", "INTEGER": "i::INTEGER", "BIGINT": "i * 3"}[kind]
        con.execute(
            f"""COPY (SELECT {key} AS k, 'name ' || i AS name, i / 4.0 AS x, hash(i) % 100 AS n FROM range({rows}) t(i))
                TO '{directory}/d{number}.parquet' (FORMAT parquet)"""
        )
        # One in ten finds nothing.
        place = f"(hash(f * {number + 2}) % {rows * 10 // 9})::BIGINT"
        keys.append({"VARCHAR": f"'key ' || {place}", "INTEGER": f"{place}::INTEGER", "BIGINT": f"{place} * 3"}[kind])
    columns = ", ".join(f"{key} AS k{number}" for number, key in enumerate(keys))
    facts = directory / "facts"
    facts.mkdir()
    per_file = num_facts // num_files
    for number in range(num_files):
        con.execute(
            f"""COPY (SELECT f AS fact, {columns}, (hash(f) % 1000) / 8.0 AS amount
                FROM range({number * per_file}, {(number + 1) * per_file}) t(f))
                TO '{facts}/f{number:03}.parquet' (FORMAT parquet)"""
        )


def write_jobs(root):
    (root / "quotes.toml").write_text(
        """store = "quotes-store"
[dimension.securities]
from = "securities.parquet"
key = "id"
[enrich.quotes]
from = "quotes/*.parquet"
join = "securities on security = id"
to = "quotes-out/"
unmatched = "quotes-unmatched/"
"""
    )
    dimensions = "".join(
        f'[dimension.d{number}]\nfrom = "star/d{number}.parquet"\nkey = "k"\n' for number in range(len(STAR))
    )
    joins = ", ".join(
        f'"d{number} on k{number} = k select name as name{number}, x as x{number}, n as n{number}"'
        for number in range(len(STAR))
    )
    (root / "star.toml").write_text(
        f"""store = "star-store"
{dimensions}
[enrich.facts]
from = "star/facts/*.parquet"
join = [{joins}]
to = "star-out/"
target_file_rows = 300000
"""
    )


def peak_of(process):
    """Highest resident memory so far, in MiB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) // 1024
    return 0


def run_with_kills(darner, job, chance, kills_max):
    """Runs a job until it ends by itself; kills it before that. Gives kills, seconds and the highest memory."""
    kills, peak, began = 0, 0, time.monotonic()
    pause = 0.5
    while True:
        process = subprocess.Popen(
            [darner, "run", str(job)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        limit = None
        if kills < kills_max:
            # Later and later, so that each part of the job is met.
            limit = chance.uniform(0.02, pause)
            pause *= 1.25
        try:
            end = time.monotonic() + (limit or 1e9)
            while process.poll() is None and time.monotonic() < end:
                peak = max(peak, peak_of(process))
                time.sleep(0.01)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM if chance.random() < 0.25 else signal.SIGKILL)
                kills += 1
            error = process.stderr.read()
            code = process.wait()
        except OSError:
            # It ended between two looks.
            error = process.stderr.read()
            code = process.wait()
        if code == 0:
            return kills, time.monotonic() - began, peak
        if code not in (-signal.SIGKILL, 143, 130, -signal.SIGTERM):
            raise SystemExit(f"{job.name}: exit code {code}: {error}")


def files_below(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def check(con, what, ours, expected):
    """Both are queries; their rows must be the same, as bags."""
    con.execute(f"CREATE OR REPLACE TEMP VIEW ours AS {ours}")
    con.execute(f"CREATE OR REPLACE TEMP VIEW expected AS {expected}")
    counts = [con.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("ours", "expected")]
    columns = [con.execute(f"SELECT * FROM {name} LIMIT 0").description for name in ("ours", "expected")]
    names = [[column[0] for column in side] for side in columns]
    if names[0] != names[1]:
        raise SystemExit(f"{what}: columns differ: {names[0]} {names[1]}")
    # A hash of each row, added up, finds any difference that does not cancel out in 64 bits.
    listed = ", ".join(f'"{name}"' for name in names[0])
    sums = [
        con.execute(f"SELECT sum(hash({listed})::HUGEINT), bit_xor(hash({listed})) FROM {name}").fetchone()
        for name in ("ours", "expected")
    ]
    if counts[0] != counts[1] or sums[0] != sums[1]:
        raise SystemExit(f"{what}: rows differ: {counts} {sums}")
    return counts[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--darner", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    print(f"seed {args.seed}, scale {args.scale}")
    chance = random.Random(args.seed)
    root = Path(tempfile.mkdtemp(prefix="darner-jobs-", dir=args.dir))
    con = duckdb.connect()
    con.execute(f"SET temp_directory = '{root}/duckdb'")
    con.execute("SET preserve_insertion_order = false")
    try:
        num_securities = max(100, int(SECURITIES * args.scale))
        began = time.monotonic()
        securities(con, root / "securities.parquet", num_securities)
        quotes(con, root / "quotes", max(240, int(QUOTES * args.scale)), QUOTE_FILES, num_securities)
        star(con, root / "star", max(2000, int(STAR_FACTS * args.scale)), STAR_FILES, args.scale)
        write_jobs(root)
        print(f"data made in {time.monotonic() - began:.0f} s")
        for name in ("quotes", "star"):
            job = root / f"{name}.toml"
            kills, seconds, peak = run_with_kills(args.darner, job, chance, args.kills)
            print(f"{name}: {kills} kills, {seconds:.0f} s in all, {peak} MiB at most")
            hidden = [path for path in files_below(root) if path.name.endswith(".tmp")]
            if hidden:
                raise SystemExit(f"{name}: left behind: {hidden}")
            again = subprocess.run([args.darner, "run", str(job)], capture_output=True, text=True, check=True)
            if again.stderr.count("unchanged") != (2 if name == "quotes" else 1 + len(STAR)):
                raise SystemExit(f"{name}: not all is unchanged: {again.stderr}")
        wide = ", ".join(f"s.c{number}" for number in range(COLUMNS - 1))
        securities_file, quotes_files = f"'{root}/securities.parquet'", f"'{root}/quotes/*.parquet'"
        rows = check(
            con,
            "quotes",
            f"SELECT * FROM '{root}/quotes-out/*.parquet'",
            f"SELECT q.*, {wide} FROM {quotes_files} q LEFT JOIN {securities_file} s ON q.security = s.id",
        )
        missed = check(
            con,
            "unmatched quotes",
            f"SELECT quote, security, price, venue FROM '{root}/quotes-unmatched/*.parquet'",
            f"SELECT q.* FROM {quotes_files} q ANTI JOIN {securities_file} s ON q.security = s.id "
            # A row without a key is counted apart.
            "WHERE q.security IS NOT NULL",
        )
        print(f"quotes: {rows} rows as DuckDB has them, {missed} of them without a security")
        joined = " ".join(
            f"LEFT JOIN '{root}/star/d{number}.parquet' d{number} ON f.k{number} = d{number}.k"
            for number in range(len(STAR))
        )
        columns = ", ".join(
            f"d{number}.name AS name{number}, d{number}.x AS x{number}, d{number}.n AS n{number}"
            for number in range(len(STAR))
        )
        rows = check(
            con,
            "star",
            f"SELECT * FROM '{root}/star-out/*.parquet'",
            f"SELECT f.*, {columns} FROM '{root}/star/facts/*.parquet' f {joined}",
        )
        print(f"star: {rows} rows as DuckDB has them")
    finally:
        shutil.rmtree(root)
    own = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"done; {own} MiB in the largest process")


if __name__ == "__main__":
    sys.exit(main())
