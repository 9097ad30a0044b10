"""Asks whether a known vulnerability is in what uv.lock names, development tools included: `make audit`.

It needs the network: PyPI's JSON API, or else OSV's. Where neither answers it fails and says so; what could not be
asked about is never passed over.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_SERVICES = ("pypi", "osv")
_SECONDS = 600


def requirements(folder: Path) -> Path:
    """What uv.lock names, as pip's requirements with hashes."""
    own = ROOT / ".uv" / "bin" / "uv"
    uv = shutil.which("uv") or (str(own) if own.exists() else None)
    if uv is None:
        sys.exit("make audit needs uv; scripts/bootstrap.sh brings it: sh scripts/bootstrap.sh")
    target = folder / "requirements.txt"
    subprocess.run(
        [uv, "export", "--quiet", "--frozen", "--all-extras", "--all-groups", "--no-emit-project", "-o", str(target)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


def ask(service: str, listed: Path) -> dict[str, Any] | str:
    """pip-audit's report; or why there is none."""
    report = listed.with_suffix(".json")
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--requirement", str(listed)]
    command += ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(
            [*command, "--output", str(report)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} seconds"
    if not report.exists():
        return (done.stderr.strip() or f"pip-audit ended with {done.returncode}").splitlines()[-1]
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def judge(report: dict[str, Any]) -> tuple[list[str], list[str]]:
    """What is vulnerable, a line each, and the names of what the service could not tell of."""
    vulnerable = []
    unknown = []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            unknown.append(one["name"])
        for found in one.get("vulns", ()):
            mended = ", ".join(found["fix_versions"]) or "nothing yet"
            vulnerable.append(f"{one['name']} {one['version']}: {found['id']}, mended in {mended}")
    return vulnerable, unknown


def main() -> int:
    """0: no known vulnerability. 1: there are some. 2: it could not be asked."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        listed = requirements(Path(folder))
        for service in _SERVICES:
            report = ask(service, listed)
            if isinstance(report, str):
                failed.append(f"{service}: {report}")
                continue
            vulnerable, unknown = judge(report)
            for line in vulnerable:
                print(line, file=sys.stderr)
            if vulnerable:
                print("Mend it with: uv lock --upgrade-package NAME", file=sys.stderr)
                return 1
            if not unknown:
                print(f"{len(report['dependencies'])} packages, no known vulnerability ({service})")
                return 0
            failed.append(f"{service}: knows nothing of {len(unknown)} packages, such as {unknown[0]}")
    for line in failed:
        print(line, file=sys.stderr)
    print(
        "NOT AUDITED: no service that knows vulnerabilities answered. A mirror of PyPI's packages is not enough: "
        "run it where https://pypi.org/pypi/ or https://api.osv.dev/ can be reached",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
