"""The rules of the product: pure functions from values to decisions, without I/O, clock, asyncio or client library."""
