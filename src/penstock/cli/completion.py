"""`penstock completion SHELL`: what has a shell complete penstock's commands, options, datasets, sources and keys."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

_VARIABLE = "_PENSTOCK_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that has SHELL complete what is typed of a penstock command.

    \b
    Put it where your shell looks, once:
      penstock completion bash > ~/.local/share/bash-completion/completions/penstock
      penstock completion zsh  > ~/.zfunc/_penstock    (a folder of $fpath, before compinit)
      penstock completion fish > ~/.config/fish/completions/penstock.fish

    Or, for this shell only: eval "$(penstock completion bash)". It asks `penstock` itself, which must be found by that
    name: activate the project's environment.
    """  # noqa: D301 (click looks for the character, and not for what spells it)
    found = get_completion_class(shell)
    assert found is not None
    # Not by the class's own method, which for bash begins one to ask it for its version.
    click.echo(ShellComplete.source(found(context.find_root().command, {}, "penstock", _VARIABLE)))
