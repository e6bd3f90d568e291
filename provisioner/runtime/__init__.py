"""A small controller runtime without product knowledge.

List-watch, work queue, election, events.
"""
