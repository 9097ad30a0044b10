"""dlt: every CSV under a prefix of a bucket that it has not seen, into a DuckDB file. Prints its seconds as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import dlt
import duckdb
from dlt.sources.credentials import AwsCredentials
from dlt.sources.filesystem import filesystem, read_csv_duckdb


def main(home: Path) -> None:
    """Load once into `home`."""
    credentials = AwsCredentials(
        aws_access_key_id=os.environ["BENCH_S3_KEY"],
        aws_secret_access_key=os.environ["BENCH_S3_SECRET"],
        endpoint_url=os.environ["BENCH_S3_ENDPOINT"],
        region_name=os.environ["BENCH_S3_REGION"],
    )
    files = filesystem(
        bucket_url=os.environ["BENCH_S3_URL"],
        credentials=credentials,
        file_glob="*.csv",
        incremental=dlt.sources.incremental("modification_date"),
    )
    file = home / "dlt.duckdb"
    pipeline = dlt.pipeline(
        "bench", pipelines_dir=str(home / "pipelines"), destination=dlt.destinations.duckdb(str(file)), dataset_name="d"
    )
    began = time.monotonic()
    pipeline.run((files | read_csv_duckdb(use_pyarrow=True)).with_name("found"), write_disposition="append")
    seconds = time.monotonic() - began
    with duckdb.connect(str(file), read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM d.found").fetchone()
    print(json.dumps({"seconds": seconds, "rows": found[0] if found else 0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
