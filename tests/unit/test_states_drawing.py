"""The drawing of the states in docs/design/ says what the transition table says."""

from __future__ import annotations

import re
from pathlib import Path

from penstock.ledger.states import BIRTHS, MOVES
from penstock.model import State

DRAWING = Path(__file__).resolve().parents[2] / "docs" / "design" / "states.md"
ARROW = re.compile(r"^    (\[\*\]|\w+) --> (\w+): \S.*$", re.MULTILINE)


def test_the_drawing_is_the_table() -> None:
    """Every legal move and every birth is an arrow with its reason, and no other arrow is drawn."""
    text = DRAWING.read_text()
    drawn = set(ARROW.findall(text))
    assert len(drawn) == text.count("-->")
    table = {(state.value, target.value) for state, targets in MOVES.items() for target in targets}
    assert drawn == table | {("[*]", state.value) for state in BIRTHS}


def test_every_state_is_explained() -> None:
    """The table below the drawing has a line for each state."""
    explained = re.findall(r"^\| (\w+) \|", DRAWING.read_text(), re.MULTILINE)
    assert set(explained) - {"state"} == {state.value for state in State}
