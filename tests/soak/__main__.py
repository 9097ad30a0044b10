"""`python -m tests.soak`: kill everything at random for some minutes, then compare row by row.

Ends with 0 when nothing is lost, twice or wrong. Else the folder with its logs stays, and what happened to each key is
told.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

import click

from tests.soak.run import Figures, soak


@click.command()
@click.option("--minutes", default=2.0, show_default=True, help="How long things arrive and processes are killed.")
@click.option("--seed", type=int, help="Repeats the actions of another soak; drawn and printed otherwise.")
@click.option("--kill-every", default=5.0, show_default=True, help="Seconds between two kills, on average.")
@click.option("--settle", default=240.0, show_default=True, help="Seconds that everything may take to end afterwards.")
@click.option("--postgres", is_flag=True, help="Ledger and warehouse in a private PostgreSQL.")
@click.option("--keep", is_flag=True, help="Keep the folder also when all is right.")
def main(minutes: float, seed: int | None, kill_every: float, settle: float, postgres: bool, keep: bool) -> None:
    """Run one soak."""
    chosen = seed if seed is not None else SystemRandom().randrange(1_000_000)
    folder = Path(tempfile.mkdtemp(prefix="penstock-soak-"))
    click.echo(f"soak: {minutes:g} minutes, seed {chosen}, in {folder}")
    try:
        figures = soak(
            folder,
            seed=chosen,
            seconds=minutes * 60,
            kill_every=kill_every,
            settle=settle,
            postgres=postgres,
            say=click.echo,
        )
    except BaseException:
        click.echo(f"the soak broke off; everything is in {folder}", err=True)
        raise
    click.echo(_table(figures))
    if not figures.good:
        click.echo(f"NOT RIGHT: everything is in {folder}; again with: make soak SEED={chosen}", err=True)
        sys.exit(1)
    if not keep:
        shutil.rmtree(folder)


def _table(figures: Figures) -> str:
    lines = [("what", "figure"), ("---", "---:"), *((name, str(value)) for name, value in figures.shown().items())]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


if __name__ == "__main__":
    main()
