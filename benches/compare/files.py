#!/usr/bin/env python3
"""One engine's join from file to file, as a process of its own: compare.py times it from start to end.

    files.py ENGINE FORMAT DIM FACTS OUT THREADS
"""

import os
import sys

ENGINE, FORMAT, DIM, FACTS, OUT, THREADS = sys.argv[1:]
# Both are read once, when the library starts.
os.environ["POLARS_MAX_THREADS"] = THREADS
os.environ["TOKIO_WORKER_THREADS"] = THREADS


def duckdb():
    import duckdb

    con = duckdb.connect()
    con.execute(f"SET threads = {THREADS}")
    con.execute("SET preserve_insertion_order = false")
    query = 'SELECT f.*, d.name, d."group", d.weight FROM f LEFT JOIN d USING (key)'
    if FORMAT == "parquet":
        for name, path in (("d", DIM), ("f", FACTS)):
            con.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
        options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1"
        con.execute(f"COPY ({query}) TO '{OUT}' ({options})")
        return
    import pyarrow as pa

    for name, path in (("d", DIM), ("f", FACTS)):
        con.register(name, pa.ipc.open_file(pa.memory_map(path)).read_all())
    reader = con.sql(query).to_arrow_reader(1 << 16)
    with pa.ipc.new_file(OUT, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def polars():
    import polars as pl

    scan = pl.scan_parquet if FORMAT == "parquet" else pl.scan_ipc
    joined = scan(FACTS).join(scan(DIM), on="key", how="left")
    if FORMAT == "parquet":
        joined.sink_parquet(OUT, compression="zstd", compression_level=1)
    else:
        joined.sink_ipc(OUT, compression="uncompressed")


def datafusion():
    import datafusion as df
    import pyarrow as pa

    ctx = df.SessionContext(df.SessionConfig().with_target_partitions(int(THREADS)))
    for name, path in (("d", DIM), ("f", FACTS)):
        if FORMAT == "parquet":
            ctx.register_parquet(name, path)
        else:
            batches = pa.ipc.open_file(pa.memory_map(path)).read_all().to_batches(1 << 16)
            parts = [batches[part :: int(THREADS)] for part in range(int(THREADS))]
            ctx.register_record_batches(name, [part for part in parts if part])
    joined = ctx.sql('SELECT f.*, d.name, d."group", d.weight FROM f LEFT JOIN d USING (key)')
    if FORMAT == "parquet":
        joined.write_parquet(OUT, compression="zstd", compression_level=1)
        return
    stream = iter(joined.execute_stream())
    first = next(stream).to_pyarrow()
    with pa.ipc.new_file(OUT, first.schema) as writer:
        writer.write_batch(first)
        for batch in stream:
            writer.write_batch(batch.to_pyarrow())


def pyarrow():
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(int(THREADS))

    def read(path):
        if FORMAT == "parquet":
            return pq.read_table(path)
        return pa.ipc.open_file(pa.memory_map(path)).read_all()

    joined = read(FACTS).join(read(DIM), keys="key", join_type="left outer")
    if FORMAT == "parquet":
        pq.write_table(joined, OUT, compression="zstd", compression_level=1)
        return
    with pa.ipc.new_file(OUT, joined.schema) as writer:
        writer.write_table(joined)


{"DuckDB": duckdb, "Polars": polars, "DataFusion": datafusion, "pyarrow": pyarrow}[ENGINE]()
