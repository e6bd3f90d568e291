"""A small controller runtime without product knowledge: list-watch, work queue, election, events."""
