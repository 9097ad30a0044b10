"""Whether what a command is asked about is declared, where nothing of it was found."""

from __future__ import annotations

from penstock.project import load_project
from penstock.settings import Settings


def check_dataset(settings: Settings, name: str) -> None:
    """Raise DeclarationError for a dataset that flows/ lacks, with the nearest that it has.

    What was there once may be in the ledger still: ask only where nothing of it was found.
    """
    load_project(settings.project_dir, only=["flows"]).dataset(name)
