"""`python -m tests.fuzz`: good, bad and broken requests against a real `penstock serve`; `make fuzz` runs it.

Ends with 0 when nothing is wrong. Else the folder with the log stays.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

import click

from tests.fuzz.run import fuzz


@click.command()
@click.option("--requests", default=100_000, show_default=True)
@click.option("--seed", type=int, help="Repeats the requests of another run; drawn and printed otherwise.")
@click.option("--only", type=int, help="Send only the request of this number.")
def main(requests: int, seed: int | None, only: int | None) -> None:
    """Fuzz once."""
    chosen = seed if seed is not None else SystemRandom().randrange(1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
    click.echo(f"fuzz: {requests} requests, seed {chosen}, in {folder}")
    figures = fuzz(folder, requests=requests, seed=chosen, freezes=requests >= 50_000, only=only, say=click.echo)
    lines = [("what", "figure"), ("---", "---:"), *((name, str(value)) for name, value in figures.shown().items())]
    click.echo("\n".join(f"| {name} | {value} |" for name, value in lines))
    if figures.wrong:
        for line in figures.wrong[:50]:
            click.echo(line, err=True)
        click.echo(f"NOT RIGHT: {folder}; again with: make fuzz REQUESTS={requests} SEED={chosen}", err=True)
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
