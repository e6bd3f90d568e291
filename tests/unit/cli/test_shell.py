"""What a user's shell meets: help by groups, completion, the plugin of kubectl, and the user's kubeconfig."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from provisioner import __version__, settings
from provisioner.cli.entry import COMMANDS, GROUPS, PLUGIN, cli, main
from tests.support.pages import ROOT


def test_help_is_grouped() -> None:
    """The help lists each command once, in its group, with its whole short help."""
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert [line[:-1] for line in shown.splitlines() if line[:-1] in GROUPS] == list(GROUPS)
    assert "..." not in shown.partition("Commands")[0].partition("Daemon:")[2]
    for name in COMMANDS:
        assert shown.count(f"\n  {name} ") == 1, name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The script of each shell asks the command for what can follow."""
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert "_NFS_PROVISIONER_COMPLETE" in script
    assert "nfs-provisioner" in script


def test_what_can_follow() -> None:
    """The script's call returns commands and flags."""
    environment = {
        **os.environ,
        "_NFS_PROVISIONER_COMPLETE": "bash_complete",
        "COMP_WORDS": "nfs-provisioner vol",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "provisioner"], capture_output=True, text=True, timeout=60, env=environment, check=True
    )
    assert done.stdout == "plain,volumes\n"


def test_the_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As a plugin of kubectl, the program names itself as the user has called it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["scripts"]) == {PLUGIN, "nfs-provisioner"}
    monkeypatch.setattr(sys, "argv", [f"/usr/bin/{PLUGIN}", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: kubectl nfs-provisioner ")


def test_the_client_s_version() -> None:
    """`version --client` needs no cluster."""
    done = CliRunner().invoke(cli, ["version", "--client"], standalone_mode=False)
    assert (done.return_value, done.output) == (0, f"Client: {__version__}\n")


def test_the_user_s_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the file that kubectl uses, if it exists, and never in a pod."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert settings.users_kubeconfig() is None
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert settings.users_kubeconfig() == str(tmp_path / ".kube" / "config")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert settings.users_kubeconfig() is None
