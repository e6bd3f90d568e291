"""The work of each command, one file per command. These modules are the composition roots."""
