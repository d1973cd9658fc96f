"""What every test shares: how Hypothesis behaves, that Ctrl-C works, and that a test which hangs ends."""

import asyncio
import faulthandler
import os
import signal
from collections.abc import Callable, Generator
from types import FrameType

import hypothesis
import pytest

# No deadline: how long an example takes depends on what else the machine does. Derandomized: a run that failed fails again.
hypothesis.settings.register_profile("edgegw", deadline=None, derandomize=True)
hypothesis.settings.load_profile("edgegw")

# How long a test may take to end after its time is over, before the run is ended.
GRACE_S = 30

_STDERR = pytest.StashKey[int]()

Handler = Callable[[int, FrameType | None], object]


def pytest_configure(config: pytest.Config) -> None:
    # A copy of the real one: while a test runs, 2 is pytest's.
    config.stash[_STDERR] = os.dup(2)
    # A run in the background of a script is started with it ignored, and so would be the programs that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item) -> Generator[None, object, object]:
    """pytest-timeout raises in a signal handler. uvloop logs what is raised there and runs on, so that the test would hang."""
    result = yield
    fail = signal.getsignal(signal.SIGALRM)
    if callable(fail):
        signal.signal(signal.SIGALRM, lambda number, frame: _end_test(item, fail, number, frame))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> Generator[None, object, object]:
    faulthandler.cancel_dump_traceback_later()
    return (yield)


def _end_test(item: pytest.Item, fail: Handler, number: int, frame: FrameType | None) -> None:
    # Not from the start: it takes a thread, and some tests count threads.
    faulthandler.dump_traceback_later(GRACE_S, exit=True, file=item.config.stash[_STDERR])
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        fail(number, frame)
        return
    if isinstance(loop, asyncio.BaseEventLoop):
        fail(number, frame)
    for task in asyncio.all_tasks(loop):
        task.cancel("the test has timed out")
