"""The command line: one file per command, which parses its flags and prints its result."""
