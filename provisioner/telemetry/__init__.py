"""Log lines, metrics and health: what the daemon reports about its work."""
