"""How a Prefect server and a worker are started for a project: command lines and environments."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import certifi

from penstock.settings import Settings

# The worker is told of runs by the event stream; asking is what remains when an event was lost.
_QUERY_SECONDS = "2"
_RETENTION_DAYS = 30
_BEGIN_OF_CERTIFICATE, _END_OF_CERTIFICATE = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def server_argv(port: int) -> list[str]:
    """Prefect's API and services in one process, on loopback: `prefect server start` without its command line."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "penstock.cli.prefect_app:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", "60", "--log-level", "warning"),
    ]


def server_env(base: Mapping[str, str], *, home: Path, port: int, auth: str) -> dict[str, str]:
    """A server of the project's own: its database under `home`, a password, no telemetry, no foreign web page."""
    origin = f"http://127.0.0.1:{port}"
    return {
        **_without_prefect(base),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect' / 'prefect.db'}",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"{origin}/api",
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": origin,
        "PREFECT_SERVER_UI_API_URL": f"{origin}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(_RETENTION_DAYS * 86_400),
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    }


def client_env(base: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """What a process needs so that Prefect's own client talks to the project's server."""
    return {
        **_without_prefect(base),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_PROFILES_PATH": str(settings.home / "prefect" / "profiles.toml"),
        "PREFECT_API_URL": settings.prefect_api_url,
        "PREFECT_API_AUTH_STRING": settings.prefect_auth.get_secret_value(),
        "PREFECT_WORKER_QUERY_SECONDS": _QUERY_SECONDS,
        # A planned run that is taken before its time waits in one of the worker's places; Prefect takes it 10 s before.
        "PREFECT_WORKER_PREFETCH_SECONDS": _QUERY_SECONDS,
        # Two requests less for every run.
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "PENSTOCK_PROJECT_DIR": str(settings.project_dir),
        "PENSTOCK_HOME": str(settings.home),
    }


def without_tls(settings: Settings) -> dict[str, str]:
    """What spares clients of a server that is asked over plain HTTP to read every authority there is: 30 ms each.

    Prefect's clients load their authorities without need, and a run makes three of them. They get one authority.
    """
    if not settings.prefect_api_url.startswith("http://"):
        return {}
    path = settings.home / "prefect" / "one-authority.pem"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    first, end, _ = Path(certifi.where()).read_text(encoding="ascii").partition(_END_OF_CERTIFICATE)
    path.write_text(first[first.index(_BEGIN_OF_CERTIFICATE) :] + end + "\n", encoding="ascii")
    return {"PREFECT_API_SSL_CERT_FILE": str(path)}


def worker_argv() -> list[str]:
    """The warm worker. With `-c` the process has no main module that its forks would import again."""
    return [sys.executable, "-c", "from penstock.worker.main import main; main()"]


def _without_prefect(base: Mapping[str, str]) -> dict[str, str]:
    # A profile or variable of the user's other Prefect must not leak into the project's.
    return {name: value for name, value in base.items() if not name.startswith("PREFECT_")}
