"""What each command does, one file per command. These modules are the composition roots."""
