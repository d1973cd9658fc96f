"""The limit of `http_single`: the least that a server on aiohttp does. `python -m tests.bench.limit_server PORT LOOP`."""

import asyncio
import sys
from collections.abc import Callable

from aiohttp import web


async def _take(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(status=201)


async def _healthy(request: web.Request) -> web.Response:
    return web.Response()


async def serve(port: int) -> None:
    """Serve until killed."""
    app = web.Application()
    app.router.add_post("/v1/topics/bench/x", _take)
    app.router.add_get("/healthz", _healthy)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The loop of this name, as the gateway picks it."""
    if kind == "asyncio":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory(sys.argv[2])) as limit_runner:
        limit_runner.run(serve(int(sys.argv[1])))
