"""`penstock`: every command, and how it ends: 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import importlib
import keyword
import logging
import sys
from pathlib import Path

import click

from penstock.errors import DeclarationError, PenstockError, SettingsError

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
    "sensors": "Run the sensors and the sweep.",
    "serve": "Run the webhook.",
    "relay": "Run the relay.",
    "worker": "Run the Prefect worker.",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        attribute = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="penstock")
@click.option(
    "--project",
    "project_dir",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    envvar="PENSTOCK_PROJECT_DIR",
    help="The project's folder (default: here).",
)
@click.pass_context
def cli(context: click.Context, project_dir: Path) -> None:
    """Drop a file or post a webhook: its rows are in the warehouse, exactly once, or in quarantine with a reason."""
    context.obj = project_dir


def main() -> None:
    """The entry point: errors of ours are one line and an exit code, never a traceback."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except (DeclarationError, SettingsError) as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(2)
    except PenstockError as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        sys.stderr.close()
        sys.exit(0)


def start_logging(level: str) -> None:
    """One line each, with the time, to standard error."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # Theirs are louder than they are useful here.
    for name in ("httpx", "httpcore", "alembic", "watchdog", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its retries are warnings, which a store that is away would make a storm of; what came of them is said by us.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
