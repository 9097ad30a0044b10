"""What this project promises: `uv run pytest`. No server is needed, and nothing is loaded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def penstock(*arguments: str) -> Any:
    """What a command says of this project, as facts."""
    command = [sys.executable, "-m", "penstock.cli", "--project", str(ROOT), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_example_is_loaded_but_for_one_row() -> None:
    """Eleven sales are good and get a total and a category; the one of nothing is rejected with the reason."""
    found = penstock("preview", str(ROOT / "examples" / "sales.csv"), "--dataset", "sales", "--rows", "100")
    assert (found["verdict"], found["good"], found["rejected"]) == ("loaded", 11, 1)
    assert [row["reason"] for row in found["first_rejected"]] == ["check quantity_positive"]
    assert [row["id"] for row in found["first_rows"] if row["category"] == "high"] == [2, 7]


def test_sales_that_arrive_are_loaded() -> None:
    """Every declaration is right, and of a wake-up and a load the first one starts the dataset's deployment."""
    found = penstock("simulate", "--event", "pending sales", "--event", "loaded sales rows=3")
    firings = {one["name"].partition(": ")[2]: one["firings"] for one in found["automations"]}
    (firing,) = firings["sales on arrival"]
    (started,) = firing["actions"]
    assert started["action"]["deployment"].endswith(".sales")
