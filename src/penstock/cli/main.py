"""`penstock`: every command, and how it ends: 0 done, 1 failed, 2 usage, 130 stopped."""

from __future__ import annotations

import errno
import importlib
import io
import keyword
import logging
import os
import sys
from pathlib import Path

import click

from penstock.cli.prefect_home import keep_prefect_apart
from penstock.errors import DeclarationError, PenstockError, SettingsError, Transient

# Imported only when called: `penstock --help` must not wait for Prefect or DuckDB.
_COMMANDS = {
    "new": "penstock.cli.new",
    "up": "penstock.cli.up",
    "demo": "penstock.cli.demo",
    "status": "penstock.cli.status",
    "why": "penstock.cli.why",
    "deliveries": "penstock.cli.deliveries",
    "quarantine": "penstock.cli.quarantine",
    "replay": "penstock.cli.replay",
    "backfill": "penstock.cli.backfill",
    "query": "penstock.cli.query",
    "preview": "penstock.cli.preview",
    "profile": "penstock.cli.profile",
    "schema": "penstock.cli.schema",
    "init-dataset": "penstock.cli.init_dataset",
    "send": "penstock.cli.send",
    "sweep": "penstock.cli.sweep",
    "plan": "penstock.cli.plan",
    "apply": "penstock.cli.apply",
    "simulate": "penstock.cli.simulate",
    "import": "penstock.cli.import_",
    "automations": "penstock.cli.automations",
    "doctor": "penstock.cli.doctor",
    "migrate": "penstock.cli.migrate",
    "env": "penstock.cli.env",
    "completion": "penstock.cli.completion",
    "sensors": "penstock.cli.services",
    "serve": "penstock.cli.serve",
    "relay": "penstock.cli.services",
    "worker": "penstock.cli.services",
}

_SUMMARIES = {
    "new": "Make a project in a new folder, with a dataset that works.",
    "up": "Start everything for this project and show what arrives.",
    "demo": "Show the whole pipe on real files, in a temporary folder.",
    "status": "How every dataset stands.",
    "why": "What happened to an object or a delivery, and what is next.",
    "deliveries": "What the webhook accepted, and what it refused: listed, shown, sent again.",
    "quarantine": "What cannot be loaded, why, and what is to become of it.",
    "replay": "Load again what is in quarantine or was loaded.",
    "backfill": "How far the load of old objects is, and when it will be done.",
    "query": "Ask the warehouse.",
    "preview": "What would be loaded of a file, without loading it.",
    "profile": "What a dataset's table holds, column by column.",
    "schema": "The remembered schemas of a dataset, and what changed.",
    "init-dataset": "Write a dataset's file from an example.",
    "send": "Post a file to the webhook, signed as the source would.",
    "sweep": "Compare the bucket with the ledger now.",
    "plan": "What apply would do on the Prefect server.",
    "apply": "Create, update, prune deployments and automations.",
    "simulate": "Which automations would fire on which events, and why others would not.",
    "import": "Write an automation of the server as code.",
    "automations": "What the project's automations did.",
    "doctor": "Check settings and parts, and say what to do.",
    "migrate": "Bring the ledger to this penstock's revision.",
    "env": "What Prefect's own command needs to find the project's server.",
    "completion": "Have your shell complete what you type.",
    "sensors": "Run the sensors and the sweep.",
    "serve": "Run the webhook.",
    "relay": "Run the relay.",
    "worker": "Run the Prefect worker.",
}


_LOOK = "; to look at every part: penstock doctor"


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # Click looks for the nearest among those that it holds.
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=_COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


_EPILOG = """Results go to standard output; what helps a reader beside them, and errors, to standard error. Without a
terminal nothing is coloured (FORCE_COLOR=1 does), wrapped or asked, and NO_COLOR=1 takes all colours away.

Exit codes: 0 done, 1 failed, or not found, 2 a wrong command, declaration or setting, 130 stopped by Ctrl-C.
`penstock plan --detailed-exitcode` and `penstock simulate` have more: their help says which."""


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="penstock")
@click.option(
    "--project",
    "project_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    envvar="PENSTOCK_PROJECT_DIR",
    help="The project's folder (default: here).",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only what was asked for, and errors.")
@click.pass_context
def cli(context: click.Context, project_dir: Path, quiet: bool) -> None:
    """Drop a file or post a webhook: its rows are in the warehouse, exactly once, or in quarantine with a reason."""
    context.obj = project_dir


def main() -> None:
    """The entry point: what goes wrong is a line and an exit code, a traceback only where penstock itself is wrong."""
    keep_prefect_apart()
    for stream in (sys.stdout, sys.stderr):
        # Where the locale has no letter for what is printed.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(_ended())
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. At its end Python may write what is left, and tell of the error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _ended() -> int:
    """Run the command that was asked for, and say how it ended."""
    try:
        return _run()
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt, EOFError):
        click.echo("stopped", err=True)
        return 130
    except BrokenPipeError:
        raise
    except (DeclarationError, SettingsError) as error:
        click.echo(f"penstock: {error}", err=True)
        return 2
    except PenstockError as error:
        # What is away may be so for many reasons, and one command knows them.
        look = _LOOK if isinstance(error, Transient) and "penstock " not in str(error) else ""
        click.echo(f"penstock: {error}{look}", err=True)
        return 1
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        click.echo(f"penstock: {told}", err=True)
        return 1


def _told(error: Exception) -> str | None:
    """What to say of an error that is none of ours and not penstock's fault either; None of any other."""
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: {error.strerror}. Run penstock as the user whose it is"
    if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    database = sys.modules.get("sqlalchemy.exc")
    if database is not None and isinstance(error, database.SQLAlchemyError):
        # Not the statement, in which there may be data.
        said = " ".join(str(getattr(error, "orig", None) or error).split())
        return f"the ledger cannot be used: {said}. Which it is: PENSTOCK_LEDGER_URL, or ledger.db in PENSTOCK_HOME"
    return None


def _run() -> int:
    # Click's own `main` takes a pipe that broke for a failure.
    name = "penstock"
    try:
        cli._main_shell_completion({}, name)
        with cli.make_context(name, sys.argv[1:]) as context:
            _invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _invoke(context: click.Context) -> None:
    try:
        cli.invoke(context)
    except (DeclarationError, SettingsError):
        raise
    except PenstockError:
        # Where there is no project nothing else has to be said: an empty ledger is no wonder there.
        from penstock.project import load_project

        load_project(context.params["project_dir"], only=())
        raise


def start_logging(level: str) -> None:
    """One line each, with the time, to standard error."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Theirs are louder than they are useful here.
    for name in ("httpx", "httpcore", "alembic", "watchdog", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its retries are warnings, which a store that is away would make a storm of; what came of them is said by us.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
