"""An event loop whose clock jumps to the next timer instead of waiting for it: minutes of back-off pass at once."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Jumping(selectors.DefaultSelector):
    """Never waits for time: where nothing is ready, time passes. While a thread is at work, which takes real time, none does."""

    passed_s = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or (self.threads and timeout > 0):
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.passed_s += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A real event loop on virtual time, which starts at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        """As the real one; time stands still until the thread is done."""
        future: asyncio.Future[Result] = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109  as it is called
        """Python 3.12 gives it five minutes, which pass at once here."""
        await super().shutdown_default_executor()

    def time(self) -> float:
        """Seconds that passed."""
        return self._jumping.passed_s


def run_virtual(main: Coroutine[Any, Any, Result]) -> Result:
    """Run `main` on virtual time; what it leaves running is a failure."""

    async def watched() -> Result:
        result = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(watched())


async def pass_time(seconds: float) -> None:
    """Let virtual time pass, and everything happen that is due in it."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()
