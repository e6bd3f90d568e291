"""Binaries built from a Go module: one run of Go, progress, and no partial result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from testbed.binaries import BinariesMissing, Source, locate

PROGRAM = 'package main\n\nimport "fmt"\n\nvar version = "none"\n\nfunc main() { fmt.Print("NAME ", version) }\n'


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Two programs without dependencies; one is named by its major version, as etcd is."""
    # Go's own cache stays: compiling the standard library again would take most of the test's time.
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    monkeypatch.setenv("GOCACHE", os.environ.get("GOCACHE") or str(caches / "go-build"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    module = tmp_path / "module"
    for name, directory in (("first", "first/v3"), ("second", "second")):
        (module / directory).mkdir(parents=True)
        (module / directory / "main.go").write_text(PROGRAM.replace("NAME", name))
    (module / "go.mod").write_text("module example.com/programs\n\ngo 1.21\n\n// example.com/pinned v1.2.3\n")
    return Source(
        name="programs",
        module=module,
        packages={"one": "example.com/programs/first/v3", "two": "example.com/programs/second"},
        release="example.com/pinned",
        stamp=_stamp,
        takes="a minute",
    )


def _stamp(source: Source) -> Mapping[str, str]:
    return {"main.version": source.version}


def test_all_programs_are_built_and_the_progress_counts_packages(source: Source) -> None:
    """Each program runs under its name with its stamp, and the progress counts the packages to compile."""
    lines: list[str] = []

    directory = locate(("one", "two"), source, progress=lines.append)

    output = [subprocess.run([directory / name], capture_output=True, text=True).stdout for name in ("one", "two")]
    assert output == ["first 1.2.3", "second 1.2.3"]
    assert any(line.startswith("compiling and linking: 0 of ") for line in lines)
    assert not [path for path in directory.iterdir() if path.name.startswith(".unfinished")]


def test_a_build_that_fails_leaves_no_program_and_shows_the_end_of_its_log(source: Source) -> None:
    """A program that does not compile raises BinariesMissing with the compiler's message, and leaves no program."""
    (source.module / "second" / "main.go").write_text("package main\n\nfunc main() { missing() }\n")

    with pytest.raises(BinariesMissing, match="undefined: missing"):
        locate(("one", "two"), source)

    with pytest.raises(BinariesMissing, match="undefined: missing"):
        locate(("one", "two"), source)
