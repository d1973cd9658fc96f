"""Decisions only: no I/O, clock, randomness, logging or asyncio.

Bytes, events and `now` come in; records, events and bytes go out.
"""
