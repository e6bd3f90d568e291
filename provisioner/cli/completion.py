"""`nfs-provisioner completion`: the script by which a shell completes commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

PROGRAM = "nfs-provisioner"
_VARIABLE = "_NFS_PROVISIONER_COMPLETE"
"""The variable by which click recognizes a call for completion: it follows from the program's name."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print the completion script of a shell.

    Load it in the shell's start file. The script asks the command itself for what can follow, so it stays correct after
    an update.

    \b
    Examples:
      source <(nfs-provisioner completion bash)      # in ~/.bashrc
      source <(nfs-provisioner completion zsh)       # in ~/.zshrc, after compinit
      nfs-provisioner completion fish > ~/.config/fish/completions/nfs-provisioner.fish
    """
    of_shell = get_completion_class(shell)
    assert of_shell is not None
    # Of the base class: that of bash starts a bash first to warn of an old one.
    click.echo(ShellComplete.source(of_shell(ctx.find_root().command, {}, PROGRAM, _VARIABLE)))
