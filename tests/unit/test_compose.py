"""docker-compose.yml, its Dockerfiles and .env.example, without a Docker engine: they fit the schema and each other."""

from __future__ import annotations

import importlib.util
import json
import re
import stat
from pathlib import Path
from types import ModuleType

import click
import jsonschema
import pytest

from penstock.cli.main import cli
from penstock.cli.prefect_processes import server_argv, server_env
from penstock.object_server import MINIO_MODULE, PINNED_VERSION
from penstock.project import load_project
from penstock.settings import PREFIX, Settings
from tests.compose_file import (
    COMPOSE,
    EXAMPLE,
    ROOT,
    SERVICES,
    TEXT,
    VARIABLE,
    environment,
    image,
    images,
    interpolated,
    mounts,
    seconds,
    start_order,
    variables_of,
)

ONE_SHOT = {"migrate", "query"}
SECRET = re.compile(r"PASSWORD|SECRET|AUTH|TOKEN|KEY|_URL$")


def in_each_service() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", sorted(SERVICES))


def test_it_is_a_compose_file() -> None:
    """The file fits the schema of the Compose Specification."""
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    assert [error.message for error in validator(schema).iter_errors(COMPOSE)] == []


def test_it_has_the_parts_of_the_system() -> None:
    """Every part that `penstock up` runs is a service, with the databases and the one-shot services beside it."""
    parts = {"minio", "postgres", "prefect", "migrate", "sensors", "webhook", "relay", "worker", "query"}
    assert set(SERVICES) == parts


def test_every_penstock_command_exists() -> None:
    """Each `penstock …` that a service runs is a command of the command line, and all long-running ones are there."""
    ran = set()
    for service in SERVICES.values():
        words = [*service.get("entrypoint", []), *service.get("command", [])]
        ran |= set(re.findall(r"\bpenstock ([a-z]+)", " ".join(words)))
    assert ran == {"migrate", "apply", "sensors", "serve", "relay", "worker", "query"}
    context = click.Context(cli)
    assert [name for name in sorted(ran) if cli.get_command(context, name) is None] == []


def test_every_penstock_variable_is_a_setting() -> None:
    """No service is given a PENSTOCK_ variable that penstock does not know, nor does an image set one."""
    set_by_images = {word for lines in images().values() for line in lines for word in re.findall(r"(\w+)=", line)}
    given = {variable for name in SERVICES for variable in environment(name)} | set_by_images
    ours = {variable for variable in given if variable.startswith(PREFIX)}
    assert len(ours) > 10
    assert ours - {PREFIX + name.upper() for name in Settings.model_fields} == set()


def test_every_interpolated_variable_is_in_the_example() -> None:
    """What docker-compose.yml asks of .env stands in .env.example, and nothing else does."""
    asked = {found[0] for found in VARIABLE.findall(TEXT)}
    assert asked == variables_of(EXAMPLE).keys()


def test_every_variable_of_the_example_has_a_comment() -> None:
    """A block of variables in .env.example begins with a comment."""
    blocks = [block for block in EXAMPLE.split("\n\n") if "=" in block]
    assert blocks
    assert [block for block in blocks if not block.startswith("# ")] == []


def test_nothing_starts_unless_every_empty_variable_is_filled() -> None:
    """A variable that .env.example leaves empty is required wherever it is used; any other has the same default."""
    values = variables_of(EXAMPLE)
    for name, kind, text in VARIABLE.findall(TEXT):
        if values[name]:
            assert (kind, text) == ("-", values[name]), name
        else:
            assert (kind, text) == ("?", "run python3 docker/make_env.py"), name


def test_no_secret_is_written_down() -> None:
    """Passwords, keys, tokens and URLs with a password come from .env, in each service and in no image."""
    addresses = {"PENSTOCK_PREFECT_API_URL", "PREFECT_API_URL", "PREFECT_SERVER_UI_API_URL"}
    for service in SERVICES:
        for variable, value in environment(service).items():
            if SECRET.search(variable) and variable not in addresses:
                assert VARIABLE.search(value), f"{service}: {variable}"
            assert not re.search(r"://[^/@]*:(?!\$\{)[^/@]*@", value), f"{service}: {variable}"
    for name, lines in images().items():
        for line in lines:
            assert not re.search(r"\b(ENV|ARG)\b.*(PASSWORD|SECRET|TOKEN)", line), f"{name}: {line}"
    values = variables_of(EXAMPLE)
    assert [name for name, value in values.items() if value and SECRET.search(name)] == []


@in_each_service()
def test_ports_are_published_on_loopback_only(name: str) -> None:
    """A port reaches this machine and no other."""
    for port in SERVICES[name].get("ports", []):
        assert isinstance(port, str)
        assert port.startswith("127.0.0.1:"), port
    assert SERVICES[name].get("network_mode", "none") == "none"


def test_the_ports_are_the_documented_ones() -> None:
    """Webhook, store, console and Prefect are reached from outside, the database is not."""
    published = {name: len(service["ports"]) for name, service in SERVICES.items() if "ports" in service}
    assert published == {"minio": 2, "prefect": 1, "webhook": 1}
    assert SERVICES["postgres"]["networks"] == ["back"]
    assert COMPOSE["networks"]["back"]["internal"] is True


@in_each_service()
def test_every_service_is_hardened(name: str) -> None:
    """A container has no capabilities, a read-only root, gains no privileges and does not run as root."""
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert "privileged" not in service
    assert "cap_add" not in service
    users = [line.split()[1] for line in images()[name] if line.startswith("USER ")]
    assert users
    assert users[-1].split(":")[0] not in {"root", "0"}
    assert service.get("user", "x").split(":")[0] not in {"root", "0"}


@in_each_service()
def test_every_service_comes_back(name: str) -> None:
    """What runs for ever is restarted; what runs once is not."""
    assert SERVICES[name]["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


def test_dependencies_wait_for_what_they_need() -> None:
    """A service starts when what it talks to is healthy and the ledger is migrated."""
    hosts = {"PENSTOCK_S3_ENDPOINT": "minio", "PENSTOCK_PREFECT_API_URL": "prefect"}
    for name, service in SERVICES.items():
        waits = service.get("depends_on", {})
        for variable, host in hosts.items():
            if variable in environment(name):
                assert waits[host] == {"condition": "service_healthy"}, name
        if name != "migrate" and "PENSTOCK_LEDGER_URL" in environment(name):
            assert waits["migrate"] == {"condition": "service_completed_successfully"}, name
        for other, how in waits.items():
            assert ("healthcheck" in SERVICES[other]) == (how["condition"] == "service_healthy"), (name, other)
    assert set(SERVICES["migrate"]["depends_on"]) == {"postgres", "minio", "prefect"}


def test_health_is_checked_where_it_can_be() -> None:
    """What answers over the network or is known to Prefect's server has a health check."""
    assert {name for name in SERVICES if "healthcheck" in SERVICES[name]} == {
        *("minio", "postgres", "prefect", "webhook", "worker"),
    }


def test_python_in_health_checks_compiles() -> None:
    """The inline programs are Python, and a file that a check runs is in the image."""
    for name, service in SERVICES.items():
        check = service.get("healthcheck", {}).get("test", [])
        if check[1:3] == ["python", "-c"]:
            compile(check[3], name, "exec")
        elif check[1:2] == ["python"]:
            assert (ROOT / check[2]).is_file()
            assert f"!{check[2]}" in (ROOT / ".dockerignore").read_text().splitlines()
            assert f"COPY {check[2]} /app/{Path(check[2]).parent}/" in images()[name]


def test_only_the_worker_and_a_query_have_the_warehouse() -> None:
    """One service writes the warehouse's file; a second has it only when asked for by its profile."""
    holders = {name for name in SERVICES if "warehouse" in mounts(name)}
    assert holders == {"worker", "query"}
    assert SERVICES["query"]["profiles"] == ["query"]
    assert "scale" not in SERVICES["worker"]
    assert "deploy" not in SERVICES["worker"]
    for name in holders:
        assert environment(name)["PENSTOCK_WAREHOUSE"].startswith("/warehouse/")


def test_every_named_volume_is_declared_and_used() -> None:
    """No data goes into an anonymous volume, and no declared volume is idle."""
    used = {mount for name in SERVICES for mount in mounts(name) if not mount.startswith(".")}
    assert used == set(COMPOSE["volumes"])


def test_the_inbox_is_not_made_by_docker() -> None:
    """The inbox is a folder of this machine that exists before, and the sensors run as who owns its files."""
    (inbox,) = SERVICES["sensors"]["volumes"]
    assert inbox == {
        "type": "bind",
        "source": "./inbox",
        "target": environment("sensors")["PENSTOCK_INBOX"],
        "bind": {"create_host_path": False},
    }
    assert SERVICES["sensors"]["user"].startswith("${INBOX_UID:?")


def test_prefects_server_is_started_as_up_starts_it(tmp_path: Path) -> None:
    """The service has every setting that `penstock up` gives its Prefect server, and the same command."""
    own = server_env({}, home=tmp_path, port=4200, auth="a:b")
    given = environment("prefect")
    assert own.keys() - given.keys() == set()
    same = {name for name in own if "RETENTION" in name or "VACUUM" in name or own[name] in {"false", "WARNING", "1"}}
    assert len(same) >= 6
    assert {name: given[name] for name in same} == {name: own[name] for name in same}
    assert given["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"].count("*") == 0
    command = server_argv(4200)[1:]
    assert SERVICES["prefect"]["command"][1:4] == command[:3]
    # `up` wraps Prefect's own app because of SQLite, which is not used here.
    assert "penstock.cli.prefect_app:create_app" in command
    assert "prefect.server.api.server:create_app" in SERVICES["prefect"]["command"]


def test_each_part_gets_no_more_than_it_needs() -> None:
    """The relay has no key of the store, sensors and webhook none of Prefect, the query none at all."""
    assert "PENSTOCK_S3_SECRET_KEY" not in environment("relay")
    assert "PENSTOCK_PREFECT_AUTH" not in environment("sensors") | environment("webhook")
    assert not [name for name in environment("query") if SECRET.search(name)]
    assert [name for name in SERVICES if "DB_ADMIN_PASSWORD" in str(SERVICES[name])] == ["postgres"]


def test_the_webhook_has_a_secret_of_every_source() -> None:
    """Each source of this project finds one of its secrets in the webhook's environment."""
    sources = load_project(ROOT, only=["flows", "webhook"]).sources
    assert sources
    for source in sources:
        assert set(source.verify.secrets) & set(environment("webhook")), source.name


def test_minio_is_the_pinned_one() -> None:
    """The image is built from the version that `make minio` builds."""
    lines = images()["minio"]
    assert f"ARG MINIO_VERSION={PINNED_VERSION}" in lines
    assert any(f'"{MINIO_MODULE}@${{MINIO_VERSION}}"' in line for line in lines)


def test_the_context_lets_in_what_is_copied_and_nothing_else() -> None:
    """.dockerignore begins by refusing everything; what the image copies is let in and exists."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source
        for line in images()["worker"]
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert rules[0] == "*"
    assert {source.removeprefix("./") for source in copied} == allowed
    assert [source for source in sorted(allowed) if not (ROOT / source).exists()] == []


@pytest.fixture
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_env", ROOT / "docker/make_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_make_env_fills_every_value(make_env: ModuleType, tmp_path: Path) -> None:
    """The command leaves no value empty, makes each secret a new one, and keeps the file to its owner."""
    (tmp_path / ".env.example").write_text(EXAMPLE)
    assert make_env.main(tmp_path) == 0
    target = tmp_path / ".env"
    values = variables_of(target.read_text())
    assert values.keys() == variables_of(EXAMPLE).keys()
    assert [name for name, value in values.items() if not value] == []
    secrets = [value for name, value in values.items() if SECRET.search(name)]
    assert len(set(secrets)) == len(secrets) == 10
    assert min(map(len, secrets)) >= 20
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (tmp_path / "inbox").is_dir()
    for name in ("DB_LEDGER_PASSWORD", "DB_PREFECT_PASSWORD"):
        assert re.fullmatch(r"[\w-]+", values[name], re.ASCII)
    assert values["INBOX_UID"] != "0"


def test_make_env_does_not_overwrite(make_env: ModuleType, tmp_path: Path) -> None:
    """An .env that exists stays as it is, and the command says that it failed."""
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / ".env").write_text("DB_ADMIN_PASSWORD=in-use\n")
    assert make_env.main(tmp_path) == 1
    assert (tmp_path / ".env").read_text() == "DB_ADMIN_PASSWORD=in-use\n"


def test_interpolation_is_composes() -> None:
    """A variable is filled in, defaulted or required as Compose does it, and two dollars are one."""
    filled = {"A": "1"}
    assert interpolated("${A:-2} ${B:-2} ${A:?no} ${A} $$A $${A}", filled) == "1 2 1 1 $A ${A}"
    for empty in ({}, {"B": ""}):
        with pytest.raises(KeyError, match="B: why"):
            interpolated("${B:?why}", empty)
    with pytest.raises(ValueError, match="lone dollar"):
        interpolated("$A", filled)


def test_services_start_after_what_they_need() -> None:
    """The order has each service once, after what it depends on, and none that has a profile; a circle is an error."""
    order = start_order(SERVICES)
    assert sorted(order) == sorted(SERVICES.keys() - {"query"})
    for name in order:
        assert set(SERVICES[name].get("depends_on", {})) <= set(order[: order.index(name)])
    with pytest.raises(ValueError, match="wait for each other"):
        start_order({"a": {"depends_on": {"b": {}}}, "b": {"depends_on": {"a": {}}}})


def test_an_image_is_its_last_stage() -> None:
    """Only the last stage says how a container starts."""
    assert image("minio").entrypoint == ["minio"]
    assert image("minio").env.keys() == {"HOME"}
    assert (image("worker").workdir, image("worker").user) == ("/app", "10001:10001")
    assert image("worker").env["PATH"] == "/app/.venv/bin:$PATH"


@pytest.mark.parametrize(("duration", "expected"), [("40s", 40.0), ("1m30s", 90.0), ("250ms", 0.25)])
def test_durations_are_composes(duration: str, expected: float) -> None:
    """Units may be joined."""
    assert seconds(duration) == expected


@pytest.mark.parametrize("duration", ["", "40", "4x", "s"])
def test_a_wrong_duration_is_an_error(duration: str) -> None:
    """A number without a unit is not taken for seconds."""
    with pytest.raises(ValueError, match="not a duration"):
        seconds(duration)
