"""The command line: one file per command, which parses its flags and prints its result. Its entry point is `main`."""

from provisioner.cli.entry import main as main
