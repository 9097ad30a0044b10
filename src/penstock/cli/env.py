"""`penstock env`: what Prefect's own command and client need in their environment to find the project's server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from penstock.cli.output import aside, on_terminal
from penstock.errors import NotRunning, PenstockError
from penstock.settings import load_settings, without_login

_LOGIN = "PREFECT_API_AUTH_STRING"


@click.command()
@click.option("--with-password", is_flag=True, help="Also the server's password, in plain text.")
@click.option("--json", "as_json", is_flag=True, help="Print facts for a program.")
@click.pass_obj
def env(project_dir: Path, with_password: bool, as_json: bool) -> None:
    """Print as export lines what Prefect's own command needs to find the project's server.

    \b
    In a shell such as bash or zsh, until it ends:
      eval "$(penstock env --with-password)"
      prefect deployment ls

    The password is printed where you ask for it, and not onto a terminal, where it would stay to be read.
    """  # noqa: D301 (click looks for the character, and not for what spells it)
    settings = load_settings(project_dir)
    if not settings.prefect_api_url:
        raise NotRunning("no Prefect server: set PENSTOCK_PREFECT_API_URL, or start one with `penstock up`")
    if with_password and on_terminal():
        raise PenstockError('no password is printed onto a terminal: eval "$(penstock env --with-password)"')
    home = settings.home / "prefect"
    url, password = settings.prefect_api_url, settings.prefect_auth.get_secret_value()
    values = {
        "PREFECT_API_URL": url if with_password else without_login(url),
        # Else the command reads its user's profile, and may show or change what belongs to another server.
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        **({_LOGIN: password} if password and with_password else {}),
    }
    if as_json:
        click.echo(json.dumps(values, indent=2))
        return
    # What is there for another server must not be sent to this one.
    click.echo(f"unset PREFECT_PROFILE PREFECT_API_KEY {_LOGIN}")
    for name, value in values.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    if password and not with_password:
        aside(f'# without {_LOGIN}, which the server asks for: eval "$(penstock env --with-password)"')
