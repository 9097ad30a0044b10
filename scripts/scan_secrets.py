"""Looks for secrets in what git has or would take: `make secrets`. Needs no network.

detect-secrets judges the lines; `scripts/known_secrets.toml` names what it may find, each with the reason. What is not
named there, and what is named and not found any more, fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "scripts" / "known_secrets.toml"

# Public data and hashes.
_PASSED_OVER = (
    "scripts/known_secrets.toml",
    "examples/data/",
    "bench/results.json",
    "tests/data/compose-spec.json",
    "uv.lock",
)
# An address is no secret.
_NOT_ASKED = ("IPPublicDetector",)
# detect-secrets takes half a millisecond for a line. Those that can hold what its detectors look for are few: with a
# long word of letters and digits, a password in a URL, a key's first line, a word like `password`.
_WORTH_A_LOOK = re.compile(
    r"(?=[\w+/=.-]{0,200}\d)(?=[\w+/=.-]{0,200}[A-Za-z])[\w+/=.-]{16,}|://[^/\s]*:[^/\s]*@|-----BEGIN"
    r"|(?i:api_?key|auth_?key|service_?key|account_?key|db_?key|database_?key|priv_?key|private_?key|client_?key"
    r"|passw|pwd|secret|token|contrase|credential)"
)


@dataclass(frozen=True, order=True)
class Found:
    """Something that looks like a secret; it is named by its hash and never shown."""

    path: str
    sha1: str
    kind: str
    line: str


def scan(root: Path, paths: Iterable[str]) -> list[Found]:
    """What looks like a secret in these files under `root`."""
    kinds: dict[str, type] = get_mapping_from_secret_type_to_class()
    detectors = sorted(kind.__name__ for kind in kinds.values())
    asked = [{"name": name} for name in detectors if name not in _NOT_ASKED]
    found = set()
    with tempfile.TemporaryDirectory() as folder, transient_settings({"plugins_used": asked}):
        for path in paths:
            lines = _lines(root / path)
            if not lines:
                continue
            # The name stays: what is asked for depends on what kind of file it is.
            copy = Path(folder) / Path(path).name
            copy.write_text("\n".join(lines.values()))
            numbers = list(lines)
            for secret in scan_file(str(copy)):
                where = str(numbers[secret.line_number - 1]) if 0 < secret.line_number <= len(numbers) else "?"
                found.add(Found(path, secret.secret_hash, secret.type, where))
            copy.unlink()
    return sorted(found)


def known() -> dict[str, str]:
    """The reason for each hash that may be found, wherever it stands."""
    groups = tomllib.loads(KNOWN.read_text())["known"]
    return {sha1: group["why"] for group in groups for sha1 in group["sha1"]}


def paths_of_git(root: Path) -> list[str]:
    """What git has or would take, but for what is passed over."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return sorted(name for name in names if not name.startswith(_PASSED_OVER) and (root / name).is_file())


def _lines(path: Path) -> dict[int, str]:
    """By number from 1, the lines that are worth a look; of what is no text, none."""
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return {}
    return {number: line for number, line in enumerate(text.split("\n"), 1) if _WORTH_A_LOOK.search(line)}


def main() -> int:
    """0 when all is well."""
    allowed = known()
    found = scan(ROOT, paths_of_git(ROOT))
    new = [one for one in found if one.sha1 not in allowed]
    for one in new:
        print(f"{one.path}:{one.line}: {one.kind} ({one.sha1})", file=sys.stderr)
    gone = sorted(set(allowed) - {one.sha1 for one in found})
    for sha1 in gone:
        print(f"{sha1} is not found any more; take it out of {KNOWN.relative_to(ROOT)}", file=sys.stderr)
    if new:
        print(
            f"{len(new)} that look like secrets. A real one: take it out, and have it replaced where it is used. "
            f"One of a test: name it, with the reason, in {KNOWN.relative_to(ROOT)}",
            file=sys.stderr,
        )
    return 1 if new or gone else 0


if __name__ == "__main__":
    sys.exit(main())
