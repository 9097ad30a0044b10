"""`python -m bench`: run the benches one after the other, print and write what they found.

Ends with 0 when every result was correct, whether or not a target was reached; the table says which were.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import click

from bench import machine, report
from bench.figures import Result
from bench.session import Session

# In this order: what wants a quiet machine first.
BENCHES = ("idle", "drops", "ways", "small", "dlt", "burst", "large", "webhook", "growth", "sweep")
_MODULES = {"ways": "ways_in", "small": "small_files", "dlt": "with_dlt", "webhook": "deliveries"}
_HERE = Path(__file__).parent


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes, three minutes: whether all is correct, not how fast.")
@click.option("--only", multiple=True, type=click.Choice(BENCHES), help="These alone; may be given several times.")
@click.option("--drops", type=click.IntRange(1), help="How many files are dropped one by one; 200, or 5 with --quick.")
@click.option("--out", type=click.Path(path_type=Path), help="The JSON; RESULTS.md comes beside it.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work; default: a temporary folder.")
@click.option("--seed", type=int, default=5, show_default=True, help="Of the random moments.")
@click.option("--keep", is_flag=True, help="Keep the folder.")
def main(
    quick: bool, only: tuple[str, ...], drops: int | None, out: Path | None, folder: Path | None, seed: int, keep: bool
) -> None:
    """Measure penstock against what it is made of, and against others that do the same work."""
    for name in [name for name in os.environ if name.startswith(("PENSTOCK_", "PREFECT_"))]:
        del os.environ[name]
    # So that what was started is ended then, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    began = time.monotonic()
    # Without folders: they say nothing of the figures.
    asked = [*(["--quick"] if quick else []), *(f"--only {name}" for name in only)]
    asked += [f"--drops {drops}"] if drops else []

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.1f} s  {line}")

    work = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=folder))
    session = Session(
        folder=work,
        quick=quick,
        drops=drops or (5 if quick else 200),
        say=say,
        random=Random(seed),  # noqa: S311
    )
    found: dict[str, object] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench", *asked]),
        "quick": quick,
        "seed": seed,
        "machine": machine.describe(work),
    }
    results: list[Result] = []
    try:
        for name in [name for name in BENCHES if not only or name in only]:
            results.append(_measure(name, session))
            found |= {"seconds": time.monotonic() - began, "benches": [result.as_json() for result in results]}
            if out is not None:
                report.write(found, out, notes=_HERE / "notes.toml")
    finally:
        session.close()
        if keep or any(result.failed for result in results):
            say(f"the folder with its logs stays: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)
    click.echo()
    click.echo(report.table(found))
    if wrong := [result.name for result in results if result.failed]:
        click.echo(f"NOT CORRECT: {', '.join(wrong)}", err=True)
        sys.exit(1)


def _measure(name: str, session: Session) -> Result:
    began = time.monotonic()
    session.say(f"== {name}")
    try:
        result: Result = importlib.import_module(f"bench.{_MODULES.get(name, name)}").run(session)
    except Exception as error:
        # One bench that fails is told of at the end, and keeps no other from running.
        traceback.print_exc()
        result = Result(name=name, title=name, failed=f"{type(error).__name__}: {error}")
    result.seconds = time.monotonic() - began
    for line in report.lines(result.as_json()):
        session.say(line)
    return result


if __name__ == "__main__":
    main()
