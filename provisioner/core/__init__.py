"""The rules of the product: pure functions from values to decisions, without I/O, clock, asyncio or client library.

`locations` names exports (`SERVER:PATH`), `places` says which locations are one export, `paths` has the rules for a
directory below an export's root, and `directories` indexes the directories of volumes on all servers by owner.
"""
