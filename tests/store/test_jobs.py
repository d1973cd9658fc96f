"""Jobs: what a tray of single messages tells each of its publishers."""

import asyncio

import pytest

from edgegw.errors import StoreFull
from edgegw.store.jobs import Part, Publish, Receipt, Tray
from tests.bus_setup import publish_job


def filled(*payloads: bytes) -> Tray:
    tray = Tray("default", 5, 1000)
    for payload in payloads:
        tray.topics.append("t")
        tray.payloads.append(payload)
        tray.content_types.append("text/plain")
        tray.futures.append(asyncio.get_running_loop().create_future())
    return tray


async def test_a_sealed_tray_is_a_publish_of_all_its_messages() -> None:
    tray = filled(b"1", b"22")
    size_bytes = tray.seal()
    assert size_bytes == tray.size_bytes > 3
    (part,) = tray.parts
    assert (part.stream, part.time_ms, part.batch.payloads, part.batch.keys) == ("default", 5, [b"1", b"22"], None)


async def test_each_publisher_gets_its_own_number() -> None:
    tray = filled(b"1", b"2", b"3")
    tray.futures[1].cancel()
    tray.seal()
    tray.parts[0].first_seq = 7
    tray.resolve()
    assert [tray.futures[i].result() for i in (0, 2)] == [Receipt("default", 7, False), Receipt("default", 9, False)]


async def test_each_publisher_hears_of_the_failure() -> None:
    tray = filled(b"1", b"2", b"3")
    tray.futures[1].cancel()
    tray.seal()
    tray.error = StoreFull("store_full", "no room")
    tray.resolve()
    for i in (0, 2):
        with pytest.raises(StoreFull):
            await tray.futures[i]


def test_a_publish_is_as_large_as_its_parts() -> None:
    one = publish_job(b"x" * 100)
    both = Publish([*one.parts, Part("other", publish_job(b"x" * 1000).parts[0].batch, 0)])
    assert both.size_bytes > one.size_bytes + 1000
