"""The only reader of the environment: `PENSTOCK_*` variables, then `.env`, then what `up` made, then defaults."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from penstock.errors import SettingsError

PREFIX = "PENSTOCK_"
RUNTIME_FILE = "up.json"
SECRETS_FILE = "secrets.json"
# Which kind of store made the folder with the objects.
KIND_FILE = "store.kind"

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(listed: str) -> list[Network]:
    return [ipaddress.ip_network(part.strip()) for part in listed.split(",") if part.strip()]


def _checked_proxies(listed: str) -> str:
    try:
        networks = _networks(listed)
    except ValueError as error:
        raise ValueError(f"{error}; give addresses or networks, such as 10.0.0.5,192.168.0.0/24") from None
    if any(network.prefixlen == 0 for network in networks):
        raise ValueError("a network of every address would let anybody choose the address that is logged and limited")
    return listed


class Settings(BaseSettings):
    """Every setting, checked at start. `load_settings` fills what depends on the project's folder."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    project: str = Field("", description="Name in resource ids and deployments; default: the folder's name")
    project_dir: Path = Field(
        Path(), description="The folder with flows/, sensors/, webhook/, automations/; default: here"
    )
    home: Path = Field(Path(".penstock"), description="Where everything local is kept")
    inbox: Path = Field(Path("inbox"), description="The watched folder")
    bucket: str = Field(
        "landing", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="The bucket that objects land in"
    )

    s3_endpoint: str = Field("", description="host:port or URL of an S3 store; empty: `up` starts one")
    s3_access_key: str = Field("", description="Access key of the store; `up` makes one for a store that it starts")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="The secret of the access key")
    s3_region: str = Field("us-east-1", description="Region that requests to the store are signed for")
    s3_secure: bool = Field(False, description="Whether an endpoint without http:// or https:// is asked by TLS")
    store: Literal["auto", "minio", "embedded"] = Field("auto", description="Which store `up` starts")
    bucket_events: Literal["listen", "webhook", "folder", "none"] = Field(
        "listen", description="How the store tells of new objects; without any, the bucket is listed every few seconds"
    )

    ledger_url: SecretStr = Field(SecretStr(""), description="SQLAlchemy URL; default: SQLite under home")
    warehouse: Path = Field(Path(), description="DuckDB file; default: under home")
    warehouse_url: SecretStr = Field(
        SecretStr(""), description="PostgreSQL URL of the warehouse; empty: the DuckDB file"
    )

    prefect_api_url: str = Field("", description="http://host:port/api; empty: `up` starts a server")
    prefect_auth: SecretStr = Field(SecretStr(""), description="user:password of the Prefect server")

    host: str = Field("127.0.0.1", description="Where the webhook listens; loopback unless told otherwise")
    port: int = Field(8484, ge=0, le=65535, description="The port of the webhook")
    notify_token: SecretStr = Field(SecretStr(""), description="Bearer token of POST /notifications/s3")
    api_token: SecretStr = Field(
        SecretStr(""), description="Bearer token of readiness, metrics and own routes; on loopback none is asked for"
    )
    trusted_proxies: Annotated[str, AfterValidator(_checked_proxies)] = Field(
        "",
        description="Addresses and networks, by commas, whose X-Forwarded-For and X-Request-Id are believed",
    )
    webhook_workers: int = Field(1, ge=1, le=64, description="How many processes serve the webhook")
    access_log: bool = Field(True, description="Whether each request of the webhook is a line on standard output")

    lease_seconds: float = Field(
        30.0, gt=0, le=300, description="How long a run that died keeps its dataset; one at work renews in time"
    )
    stall_seconds: Seconds = Field(
        600.0,
        description="How long a run or a service may stand still before it is given up and started again; "
        "one call of the store may take about 90 s",
    )
    wakeup_seconds: Seconds = Field(5.0, description="How long the first wake-up may stay unanswered; then doubled")
    verify_seconds: Seconds = Field(300.0, description="How often warehouse and ledger are compared")
    batch_objects: int = Field(1000, ge=1, le=100_000, description="How many objects a run loads together at most")
    batch_bytes: int = Field(256_000_000, ge=1, description="How many bytes of objects a run loads together at most")
    worker_limit: int = Field(4, ge=1, description="How many runs a worker has at once")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="From which level on the processes log, to standard error"
    )

    @property
    def proxies(self) -> list[Network]:
        """The networks of the proxies that are trusted."""
        return _networks(self.trusted_proxies)

    @property
    def ledger(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url.get_secret_value() or f"sqlite:///{self.home / 'ledger.db'}"

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, masked(value) if isinstance(value, str) else value

    def resolve_secret(self, name: str) -> str:
        """A webhook source's secret by the name of its environment variable; empty where there is none."""
        return os.environ.get(name) or _dotenv(self.project_dir).get(name) or _made(self.home).get(name, "")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """One line of `penstock doctor`: a setting, its value (secrets masked) and where it came from."""

    name: str
    value: str
    origin: str


class _MadeSource(PydanticBaseSettingsSource):
    """What `up` made and found: secrets of its own and the addresses of what it started."""

    def __init__(self, settings_cls: type[BaseSettings], home: Path) -> None:
        super().__init__(settings_cls)
        self._values = _made(home)

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(PREFIX + field_name.upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        return {
            name: self._values[PREFIX + name.upper()]
            for name in self.settings_cls.model_fields
            if PREFIX + name.upper() in self._values
        }


def load_settings(project_dir: Path | str | None = None, **overrides: Any) -> Settings:
    """Read and check the settings of the project in `project_dir` (default: `PENSTOCK_PROJECT_DIR`, else here).

    Relative paths are taken from the project's folder. Raises SettingsError naming each variable that is wrong.
    """
    root = Path(project_dir or os.environ.get(PREFIX + "PROJECT_DIR") or ".").expanduser().resolve()
    home = _home(root, overrides)
    fixed = {**overrides, "project_dir": root, "home": home}
    try:
        loaded = _loader(root, home)(**fixed)
    except ValidationError as error:
        wrong = "; ".join(f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"settings: {wrong}. Mend the variable or .env, then look with: penstock doctor") from None
    filled: dict[str, Any] = {
        "project": _project_name(loaded.project, root),
        "inbox": _under(root, loaded.inbox),
        "warehouse": _under(root, loaded.warehouse) if str(loaded.warehouse) != "." else home / "warehouse.duckdb",
    }
    return Settings.model_construct(**{**loaded.model_dump(), **filled})


@lru_cache(maxsize=8)
def _loader(root: Path, home: Path) -> type[Settings]:
    """Reads the sources each time it is called. Made once, since making a model takes longer than reading them."""

    class _Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings, *(source for _, source in _sources(root, home)))

    return _Loaded


def masked(value: str) -> str:
    """A URL without its passwords; what is no URL, or has none, as it is."""
    # Greedy: a password may hold an @ itself.
    shown = re.sub(r"://([^:/@]*):.*@", r"://\1:********@", value)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1********", shown)


def without_login(url: str) -> str:
    """A URL without user and password, to be shown or followed."""
    return re.sub(r"://.*@", "://", url)


def provenance(settings: Settings) -> list[Provenance]:
    """Each setting with the place its value came from, for `penstock doctor`."""
    layers = [
        (origin, {key.lower(): value for key, value in source().items()})
        for origin, source in _sources(settings.project_dir, settings.home)
    ]
    lines = []
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            hidden = masked(secret) if name.endswith("_url") else "********"
            shown = hidden if secret else "(not set)"
        else:
            shown = masked(str(value))
        origin = next((origin for origin, values in layers if name in values), "default")
        lines.append(Provenance(name=PREFIX + name.upper(), value=shown, origin=origin))
    return lines


def write_made(home: Path, filename: str, values: dict[str, Any]) -> None:
    """Write what `up` made, readable by its owner only, in one step."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = home / filename
    draft = target.with_suffix(".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(values, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)


def read_made(home: Path, filename: str) -> dict[str, Any]:
    """What `write_made` wrote, or nothing. Raises SettingsError when the file was damaged."""
    try:
        values = json.loads((home / filename).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SettingsError(f"{home / filename} is damaged ({error}); remove it and run: penstock up") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{home / filename} is damaged (not an object); remove it and run: penstock up")
    return values


def _made(home: Path) -> dict[str, Any]:
    made = {**read_made(home, SECRETS_FILE), **read_made(home, RUNTIME_FILE)}
    return {key: value for key, value in made.items() if key.isupper()}


def _sources(root: Path, home: Path) -> list[tuple[str, Any]]:
    return [
        ("environment", EnvSettingsSource(Settings, env_prefix=PREFIX, env_ignore_empty=True)),
        (".env", DotEnvSettingsSource(Settings, env_file=root / ".env", env_prefix=PREFIX, env_ignore_empty=True)),
        (f"{home.name}/ (made by up)", _MadeSource(Settings, home)),
    ]


def _home(root: Path, overrides: dict[str, Any]) -> Path:
    chosen = overrides.pop("home", None) or os.environ.get(PREFIX + "HOME") or _dotenv(root).get(PREFIX + "HOME")
    return _under(root, Path(chosen or ".penstock"))


def _under(root: Path, path: Path) -> Path:
    return path if path.is_absolute() else root / path


def _dotenv(root: Path) -> dict[str, str]:
    source = DotEnvSettingsSource(Settings, env_file=root / ".env", case_sensitive=True, env_prefix="")
    return {key: value for key, value in source.env_vars.items() if value is not None}


def _project_name(configured: str, root: Path) -> str:
    name = configured
    if not name:
        try:
            name = tomllib.loads((root / "pyproject.toml").read_text()).get("project", {}).get("name", "")
        except (FileNotFoundError, tomllib.TOMLDecodeError):
            name = ""
    name = re.sub(r"[^a-z0-9_-]+", "-", (name or root.name).lower()).strip("-")
    if not name:
        raise SettingsError(f"{root} gives no usable project name; set PENSTOCK_PROJECT=name")
    return name
