"""The quick part of the bench: every result is correct. How long it took is not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.running import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(480)]

# It goes through what they share: a world that is up, a peer, the comparison of the rows, both files.
SOME = ["small"]
BENCHES = ["idle", "drops", "ways", "small", "dlt", "burst", "large", "webhook", "growth", "sweep"]


@pytest.mark.parametrize(
    "asked", [pytest.param(SOME, id="some"), pytest.param(BENCHES, id="all", marks=pytest.mark.long)]
)
def test_every_bench_measures_and_is_correct(tmp_path: Path, asked: list[str]) -> None:
    """Each bench ends, has compared what came out with what was put in, and is in the JSON and in RESULTS.md."""
    out = tmp_path / "out" / "results.json"
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out), "--folder", str(tmp_path)]
    command += [argument for name in asked for argument in ("--only", name)]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=420, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    benches = {bench["name"]: bench for bench in json.loads(out.read_text())["benches"]}
    assert list(benches) == asked
    for name, bench in benches.items():
        # dlt comes with `make bench` only.
        if name == "dlt" and bench["skipped"]:
            continue
        assert bench["verified"], bench
        assert bench["figures"], bench
        assert all(figure["value"] >= 0 for figure in bench["figures"]), bench
    text = out.with_name("RESULTS.md").read_text()
    assert all(bench["title"] in text for bench in benches.values())
    assert not list(tmp_path.glob("penstock-bench-*"))
