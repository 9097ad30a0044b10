"""Settings: where each comes from, what is refused, and what is never shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from penstock.errors import SettingsError
from penstock.settings import (
    RUNTIME_FILE,
    SECRETS_FILE,
    Settings,
    load_settings,
    provenance,
    read_made,
    write_made,
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "My Project").mkdir()
    return tmp_path / "My Project"


def origins(settings: Settings) -> dict[str, str]:
    return {line.name: line.origin for line in provenance(settings)}


def shown(settings: Settings) -> dict[str, str]:
    return {line.name: line.value for line in provenance(settings)}


def test_a_bare_folder_has_defaults_under_itself(root: Path) -> None:
    """With nothing set everything local lies under the project, named after its folder."""
    found = load_settings(root)
    assert found.project == "my-project"
    assert (found.home, found.inbox) == (root / ".penstock", root / "inbox")
    assert found.warehouse == root / ".penstock" / "warehouse.duckdb"
    assert found.ledger == f"sqlite:///{root}/.penstock/ledger.db"
    assert set(origins(found).values()) == {"default"}
    assert not (root / ".penstock").exists()


def test_the_environment_wins_over_dotenv_over_what_up_made(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable is taken from the first of environment, .env and what `up` made; `doctor` says which it was."""
    write_made(root / ".penstock", RUNTIME_FILE, {f"PENSTOCK_{n}": "made" for n in ("BUCKET", "S3_REGION", "HOST")})
    (root / ".env").write_text("PENSTOCK_BUCKET=dotenv\nPENSTOCK_S3_REGION=dotenv\n")
    monkeypatch.setenv("PENSTOCK_BUCKET", "environment")
    found = load_settings(root)
    assert (found.bucket, found.s3_region, found.host) == ("environment", "dotenv", "made")
    said = origins(found)
    assert said["PENSTOCK_BUCKET"] == "environment"
    assert said["PENSTOCK_S3_REGION"] == ".env"
    assert said["PENSTOCK_HOST"] == ".penstock/ (made by up)"
    assert said["PENSTOCK_PORT"] == "default"


def test_an_empty_variable_is_not_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is there but empty leaves the next place its turn."""
    monkeypatch.setenv("PENSTOCK_BUCKET", "")
    (root / ".env").write_text("PENSTOCK_BUCKET=dotenv\nPENSTOCK_PORT=\n")
    found = load_settings(root)
    assert (found.bucket, found.port) == ("dotenv", 8484)


def test_an_argument_wins(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller gives is above every other place."""
    monkeypatch.setenv("PENSTOCK_BUCKET", "environment")
    monkeypatch.setenv("PENSTOCK_HOME", "elsewhere")
    found = load_settings(root, bucket="given", home=root / "h")
    assert (found.bucket, found.home) == ("given", root / "h")


def test_the_project_may_be_named_by_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument the folder is PENSTOCK_PROJECT_DIR, else the working folder."""
    monkeypatch.chdir(root.parent)
    assert load_settings().project_dir == root.parent
    monkeypatch.setenv("PENSTOCK_PROJECT_DIR", str(root))
    assert load_settings().project_dir == root


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_relative_paths_are_the_projects(root: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A relative path is below the project's folder, wherever the command was started."""
    values = {"PENSTOCK_HOME": "state", "PENSTOCK_INBOX": "drop/here", "PENSTOCK_WAREHOUSE": "w/x.duckdb"}
    if where == "environment":
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    else:
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    monkeypatch.chdir(root.parent)
    found = load_settings(root)
    assert (found.home, found.inbox, found.warehouse) == (root / "state", root / "drop/here", root / "w/x.duckdb")
    assert found.ledger == f"sqlite:///{root}/state/ledger.db"


def test_absolute_paths_stay(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absolute path is taken as it is."""
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("PENSTOCK_INBOX", str(tmp_path / "i"))
    found = load_settings(root)
    assert (found.home, found.inbox) == (tmp_path / "h", tmp_path / "i")


@pytest.mark.parametrize(
    ("pyproject", "variable", "name"),
    [
        ('[project]\nname = "Water.Works"\n', None, "water-works"),
        ('[project]\nname = "Water.Works"\n', "The Mill", "the-mill"),
        ("[tool.x]\n", None, "my-project"),
        ("not toml [", None, "my-project"),
    ],
)
def test_the_project_has_a_name_fit_for_resource_ids(
    root: Path, monkeypatch: pytest.MonkeyPatch, pyproject: str, variable: str | None, name: str
) -> None:
    """The name is the variable, else pyproject's, else the folder's, in small letters, digits, - and _."""
    (root / "pyproject.toml").write_text(pyproject)
    if variable:
        monkeypatch.setenv("PENSTOCK_PROJECT", variable)
    assert load_settings(root).project == name


def test_a_folder_without_a_usable_name_asks_for_one(tmp_path: Path) -> None:
    """A folder whose name has no usable letter is refused with the variable to set."""
    (tmp_path / "...").mkdir()
    with pytest.raises(SettingsError, match="PENSTOCK_PROJECT"):
        load_settings(tmp_path / "...")


def test_every_wrong_variable_is_named_without_its_value(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All faults are told at once, by variable, with the command that shows the settings."""
    monkeypatch.setenv("PENSTOCK_PORT", "hunter2")
    monkeypatch.setenv("PENSTOCK_STORE", "tape")
    (root / ".env").write_text("PENSTOCK_BUCKET=Not A Bucket\nPENSTOCK_LEASE_SECONDS=0\n")
    with pytest.raises(SettingsError) as raised:
        load_settings(root)
    message = str(raised.value)
    for name in ("PORT", "STORE", "BUCKET", "LEASE_SECONDS"):
        assert f"PENSTOCK_{name}: " in message
    assert "penstock doctor" in message
    assert "hunter2" not in message


def test_secrets_are_never_shown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor`, and the settings as text, show that a secret is set and not what it is."""
    secrets = {"S3_SECRET_KEY": "hush1", "PREFECT_AUTH": "u:hush2", "NOTIFY_TOKEN": "hush3"}
    for name, value in secrets.items():
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    found = load_settings(root)
    assert "hush" not in repr(found) + str(shown(found))
    assert shown(found)["PENSTOCK_S3_SECRET_KEY"] == "********"
    assert shown(load_settings(root, s3_secret_key=""))["PENSTOCK_S3_SECRET_KEY"] == "(not set)"
    assert found.s3_secret_key.get_secret_value() == "hush1"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hush@db:5432/x",
        "postgresql://user:hu@sh@db/x",
        "postgresql://user:hu/sh@db/x",
        "postgresql://:hush@db/x",
        "postgresql://db/x?user=u&password=hush&sslmode=require",
    ],
)
def test_a_password_in_an_address_is_masked(root: Path, url: str) -> None:
    """The ledger's address is shown without its password, wherever in it the password is."""
    value = shown(load_settings(root, ledger_url=url))["PENSTOCK_LEDGER_URL"]
    assert "hu" not in value
    assert "sh@" not in value
    assert "db" in value
    assert "********" in value
    assert "hush" not in repr(load_settings(root, ledger_url=url, prefect_api_url=url, s3_endpoint=url))


@pytest.mark.parametrize("value", ["http://localhost:4200/api", "sqlite:////data/l.db"])
def test_an_address_without_a_password_is_shown_whole(root: Path, value: str) -> None:
    """Nothing is masked where there is nothing to hide."""
    assert shown(load_settings(root, prefect_api_url=value))["PENSTOCK_PREFECT_API_URL"] == value


def test_a_sources_secret_is_found_by_name(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook secret comes from the environment, .env or what `up` made, in that order, else it is empty."""
    write_made(root / ".penstock", SECRETS_FILE, {"HOOK": "made", "OTHER": "made"})
    assert load_settings(root).resolve_secret("HOOK") == "made"
    (root / ".env").write_text("HOOK=dotenv\n")
    assert load_settings(root).resolve_secret("HOOK") == "dotenv"
    monkeypatch.setenv("HOOK", "environment")
    found = load_settings(root)
    assert [found.resolve_secret(name) for name in ("HOOK", "OTHER", "NONE")] == ["environment", "made", ""]


def test_what_is_made_is_the_owners_alone(root: Path) -> None:
    """What `up` makes is readable by nobody else, replaced in one step, and read back as it was."""
    home = root / ".penstock"
    for values in ({"A": 1}, {"PENSTOCK_PORT": "9000", "pid": 7}):
        write_made(home, RUNTIME_FILE, values)
        assert read_made(home, RUNTIME_FILE) == values
    assert (home / RUNTIME_FILE).stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in home.iterdir()] == [RUNTIME_FILE]
    assert load_settings(root).port == 9000


@pytest.mark.parametrize("content", [b"{", b"[]", b"7", b"\xff\xfe", b""])
def test_a_damaged_file_is_named(root: Path, content: bytes) -> None:
    """A damaged file of `up` is refused with its path and what to do, not with a traceback."""
    home = root / ".penstock"
    home.mkdir()
    (home / SECRETS_FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=rf"{SECRETS_FILE} is damaged.*penstock up"):
        load_settings(root)


def test_unknown_variables_are_passed_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of a later penstock, or a stranger in .env, is no error."""
    monkeypatch.setenv("PENSTOCK_FLUX", "1")
    (root / ".env").write_text("DATABASE=x\n")
    assert json.loads(load_settings(root).model_dump_json())["port"] == 8484


def test_settings_cannot_be_changed(root: Path) -> None:
    """Settings are read once; nobody changes them afterwards."""
    found = load_settings(root)
    with pytest.raises(ValueError, match="frozen"):
        found.port = 1  # type: ignore[misc]
