"""edgegw: a gateway process that never loses what it acknowledged.

cli/            noun-verb commands, a file per noun
gateway.py      composition root: builds the services from Config, starts and stops them in order
services.py     tasks with an owner: contained, restarted, stopped in order; notify.py the supervisor's protocol
api/            the HTTP side: server, routes, table of errors
bus.py          publish, subscriptions, durable consumers, backpressure
store/          the only SQL: the journal (bus.db) and its migrations
core/           decisions only: no I/O, clock, randomness, logging, asyncio
config.py       the frozen configuration; config_values.py its kinds, config_source.py where it comes from
conditions.py   named states an operator may need to know
observe/        logs and metrics
clock.py        the machine's clocks, as an object
errors.py       the errors, sorted by who must act; limits.py every bound with its reason

Imports go down only, in this order.
"""

__version__ = "0.1.0"
