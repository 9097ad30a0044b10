"""With which of a source's secrets the command line signs."""

from __future__ import annotations

from penstock.errors import SettingsError
from penstock.settings import Settings
from penstock.sources import Source


def signing_secret(settings: Settings, source: Source) -> str:
    """The first of the source's secrets that signs; nothing where none is needed. Raises SettingsError: none is set."""
    from penstock.webhook import verify
    from penstock.webhook.secrets import open_secrets, remedy

    if source.verify.scheme == "none":
        return ""
    secrets = open_secrets(settings, [source])
    secrets.refresh()
    known = [value for value in map(secrets.value, source.verify.secrets) if value]
    if not known:
        raise SettingsError(f"no secret for {source.name}: {remedy(source.verify.secrets[0])}")
    return next((value for value in known if verify.can_sign(source.verify, value)), known[0])
