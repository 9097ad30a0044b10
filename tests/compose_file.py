"""docker-compose.yml and its Dockerfiles as data, read as Compose reads them, without a Docker engine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()

VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z0-9_]+)(?::([?-])([^}]*))?\}")
# What else may hold a dollar: two of them stand for one.
_DOLLARS = re.compile(rf"\$\$|{VARIABLE.pattern}|\$")


@dataclass(frozen=True, kw_only=True)
class Image:
    """What the last stage of a Dockerfile says about how a container starts."""

    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def environment(name: str) -> dict[str, str]:
    """What a service is given, not interpolated."""
    return dict(SERVICES[name].get("environment", {}))


def mounts(name: str) -> list[str]:
    """The volumes and folders of the host that a service has."""
    return [source for source, _ in volumes(SERVICES[name])]


def volumes(service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each volume or folder of the host with its path in the container."""
    for mount in service.get("volumes", []):
        if isinstance(mount, str):
            source, _, target = mount.partition(":")
            yield source, target
        else:
            yield mount["source"], mount["target"]


def memory_folders(service: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """The path of each tmpfs in the container, with its options."""
    for mount in service.get("tmpfs", []):
        # An option may hold an interpolated variable, and that a colon.
        path, _, options = mount.partition(":")
        yield path, dict(re.findall(r"(mode|uid|gid)=(\$\{[^}]*\}|[^,]*)", options))


def images() -> dict[str, list[str]]:
    """The instructions of each service's Dockerfile, continued lines joined."""
    return {name: instructions(name) for name in SERVICES}


def instructions(name: str) -> list[str]:
    """The instructions of a service's Dockerfile, continued lines joined."""
    build = SERVICES[name]["build"]
    text = (ROOT / build["context"] / build["dockerfile"]).read_text()
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line for line in bare.replace("\\\n", " ").splitlines() if line.strip()]


def image(name: str) -> Image:
    """How a container of the service's image starts, as far as its own Dockerfile says."""
    env: dict[str, str] = {}
    said: dict[str, str] = {}
    for line in instructions(name):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            env, said = {}, {}
        elif word == "ENV":
            env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        else:
            said[word] = rest
    return Image(
        env=env,
        workdir=said.get("WORKDIR", "/"),
        user=said.get("USER", ""),
        entrypoint=json.loads(said.get("ENTRYPOINT", "[]")),
        command=json.loads(said.get("CMD", "[]")),
    )


def command_line(service: Mapping[str, Any], of_image: Image) -> list[str]:
    """What a container of the service runs, not interpolated; its own entrypoint drops the image's command."""
    if "entrypoint" in service:
        return [*service["entrypoint"], *service.get("command", [])]
    return [*of_image.entrypoint, *service.get("command", of_image.command)]


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME:-default}` and `${NAME:?reason}` filled in; KeyError with the reason for what is required and empty."""

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if name is None:
            if found[0] == "$$":
                return "$"
            raise ValueError(f"a lone dollar in {text!r}: write two")
        value = variables.get(name, "")
        if not value and kind == "?":
            raise KeyError(f"{name}: {rest}")
        return value or rest or ""

    return _DOLLARS.sub(fill, text)


def variables_of(env_file: str) -> dict[str, str]:
    """The variables of an .env file."""
    return dict(re.findall(r"^(\w+)=(.*)$", env_file, re.MULTILINE))


def start_order(services: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The services without a profile, each after all that it depends on. ValueError for a circle."""
    order: list[str] = []
    open_: list[str] = []

    def visit(name: str) -> None:
        if name in open_:
            raise ValueError(f"services wait for each other: {[*open_, name]}")
        if name in order:
            return
        open_.append(name)
        for other in services[name].get("depends_on", {}):
            visit(other)
        order.append(open_.pop())

    for name, service in services.items():
        if "profiles" not in service:
            visit(name)
    return order


def seconds(duration: str) -> float:
    """A duration of Compose, such as `1m30s`."""
    parts = re.findall(r"(\d+)(ms|s|m|h)", duration)
    if not parts or "".join(map("".join, parts)) != duration:
        raise ValueError(f"not a duration: {duration!r}")
    return sum(int(number) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[unit] for number, unit in parts)
