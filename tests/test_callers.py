"""Who shows a token: found by its secret and nothing else, gone when revoked or expired, and never lost or doubled by a disk."""

import asyncio
import itertools

import pytest

from edgegw.callers import Callers, check_topics, token_json
from edgegw.core.access import LOCAL, NOBODY, OWNER, STRANGER, Token, digest_of
from edgegw.errors import Conflict, NotFound, RequestError, StoreError, TooLarge, Unauthorized
from edgegw.limits import TOKEN_TOPICS_BYTES_MAX, TOKEN_TOPICS_MAX, TOKENS_MAX


class Clock:
    """Wall time by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.now_ms

    def mono_s(self) -> float:
        return self.now_ms / 1000


class File:
    """Where tokens are kept; it can fail."""

    def __init__(self) -> None:
        self.kept: dict[str, Token] = {}
        self.fails = False

    async def tokens(self) -> list[Token]:
        return list(self.kept.values())

    async def put_token(self, token: Token) -> None:
        await self._work()
        self.kept[token.name] = token

    async def remove_token(self, name: str) -> None:
        await self._work()
        self.kept.pop(name, None)

    async def _work(self) -> None:
        await asyncio.sleep(0)
        if self.fails:
            raise StoreError("state_failed", "the disk is gone")


_counts = itertools.count(1)


def chance(size: int) -> bytes:
    return next(_counts).to_bytes(size, "big")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file() -> File:
    return File()


@pytest.fixture
def callers(clock: Clock, file: File) -> Callers:
    return Callers(clock, chance, file)


def refused(callers: Callers, authorization: str) -> str:
    with pytest.raises(Unauthorized) as caught:
        callers.bearer(authorization)
    return caught.value.code


async def test_a_token_is_known_by_its_secret(callers: Callers, file: File, clock: Clock) -> None:
    held, secret = await callers.create("pump", ("publish",), ("a/#",))
    assert callers.bearer(f"Bearer {secret}") is held.caller
    assert callers.bearer(f"bearer  {secret} ") is held.caller
    assert held.caller.topics == ("a/#",)
    assert file.kept["pump"].digest == digest_of(secret)
    assert secret not in repr(file.kept)
    assert held.used_ms == clock.now_ms
    again = Callers(clock, chance, file)
    await again.load()
    assert again.bearer(f"Bearer {secret}").name == "the token 'pump'"
    assert len(again) == 1


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer egw_x", "Basic YTpi", "egw_x", "Bearer \udcff\udcfe", "Bearer a b"]
)
async def test_what_is_no_token(callers: Callers, authorization: str) -> None:
    await callers.create("pump", ("publish",))
    assert refused(callers, authorization) == "bad_token"


async def test_an_expired_token(callers: Callers, clock: Clock) -> None:
    held, secret = await callers.create("pump", ("publish",), expires_s=10)
    clock.now_ms += 9_999
    assert callers.bearer(f"Bearer {secret}") is held.caller
    assert not callers.has_ended(held.caller)
    clock.now_ms += 1
    assert callers.has_ended(held.caller)
    assert refused(callers, f"Bearer {secret}") == "expired_token"


async def test_a_revoked_token(callers: Callers, file: File) -> None:
    held, secret = await callers.create("pump", ("publish",))
    await callers.revoke("pump")
    assert refused(callers, f"Bearer {secret}") == "bad_token"
    assert callers.has_ended(held.caller)
    assert (len(callers), file.kept) == (0, {})
    with pytest.raises(NotFound) as caught:
        await callers.revoke("pump")
    assert caught.value.code == "unknown_token"
    await callers.create("pump", ("publish",))


async def test_a_name_twice(callers: Callers) -> None:
    results = await asyncio.gather(*(callers.create("pump", ("publish",)) for _ in range(2)), return_exceptions=True)
    assert [type(result) for result in results] == [tuple, Conflict]


async def test_a_disk_that_fails_when_one_is_made(callers: Callers, file: File) -> None:
    file.fails = True
    with pytest.raises(StoreError):
        await callers.create("pump", ("publish",))
    assert len(callers) == 0
    file.fails = False
    await callers.create("pump", ("publish",))


async def test_a_disk_that_fails_when_one_is_revoked(callers: Callers, file: File) -> None:
    _, secret = await callers.create("pump", ("publish",))
    file.fails = True
    with pytest.raises(StoreError):
        await callers.revoke("pump")
    assert refused(callers, f"Bearer {secret}") == "bad_token"
    assert [held.token.name for held in callers.held()] == ["pump"]  # so that it can be tried again
    file.fails = False
    await callers.revoke("pump")
    assert file.kept == {}


async def test_so_many_and_no_more(clock: Clock) -> None:
    callers = Callers(clock, chance)
    for i in range(TOKENS_MAX):
        callers._hold(Token(str(i), i.to_bytes(32, "big"), ("publish",), (), 0, None))
    with pytest.raises(Conflict) as caught:
        await callers.create("pump", ("publish",))
    assert caught.value.code == "too_many_tokens"


@pytest.mark.parametrize(
    ("name", "scopes", "topics", "expires_s", "code"),
    [
        ("", ("publish",), (), None, "bad_token_name"),
        ("a", (), (), None, "bad_scope"),
        ("a", ("publish",), ("a/#/b",), None, "bad_filter"),
        ("a", ("publish",), (), 0, "bad_expiry"),
    ],
)
async def test_what_cannot_be(
    callers: Callers, name: str, scopes: tuple[str, ...], topics: tuple[str, ...], expires_s: float | None, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        await callers.create(name, scopes, topics, expires_s)
    assert caught.value.code == code
    assert len(callers) == 0


def test_topics() -> None:
    assert check_topics(("b", "a/#", "b")) == ("b", "a/#")
    for topics in ([f"t{i}" for i in range(TOKEN_TOPICS_MAX + 1)], ["x" * TOKEN_TOPICS_BYTES_MAX, "y"]):
        with pytest.raises(TooLarge) as caught:
            check_topics(tuple(topics))
        assert caught.value.code == "too_many_filters"


async def test_who_lacks_a_scope(callers: Callers) -> None:
    held, _ = await callers.create("pump", ("publish",))
    for caller, code in ((NOBODY, "no_token"), (LOCAL, "no_token"), (STRANGER, "not_allowed"), (held.caller, "not_allowed")):
        with pytest.raises(Unauthorized) as caught:
            callers.refuse(caller, "admin")
        assert caught.value.code == code
    assert not callers.has_ended(OWNER)


async def test_as_people_read_it(callers: Callers) -> None:
    held, secret = await callers.create("pump", ("admin", "publish"), ("a",), 60)
    assert token_json(held) == {
        "name": "pump",
        "scopes": ["publish", "admin"],
        "topics": ["a"],
        "created": "2023-11-14T22:13:20.000Z",
        "expires": "2023-11-14T22:14:20.000Z",
        "last_used": None,
    }
    callers.bearer(f"Bearer {secret}")
    assert token_json(held)["last_used"] == "2023-11-14T22:13:20.000Z"
