"""Callers: what scopes and topics allow; names, scopes and expiry of tokens."""

import pytest

from edgegw.core.access import (
    ADMIN,
    KNOWN,
    LOCAL,
    NOBODY,
    OPEN,
    OWNER,
    PUBLISH,
    STRANGER,
    SUBSCRIBE,
    Caller,
    Token,
    certificate_caller,
    check_expiry_s,
    check_scopes,
    check_token_name,
    digest_of,
    secret_of,
)
from edgegw.errors import RequestError, Unauthorized
from edgegw.limits import NAME_BYTES_MAX, TOKEN_EXPIRY_S_MAX

NARROW = Caller("narrow", PUBLISH, SUBSCRIBE, topics=("a/+", "b/#"))


@pytest.mark.parametrize(
    ("caller", "scopes"),
    [
        (NOBODY, {OPEN}),
        (STRANGER, {OPEN}),
        (LOCAL, {OPEN, KNOWN, PUBLISH, SUBSCRIBE}),
        (OWNER, {OPEN, KNOWN, PUBLISH, SUBSCRIBE, ADMIN}),
        (certificate_caller("sensor"), {OPEN, KNOWN, PUBLISH, SUBSCRIBE}),
        (Caller("x", ADMIN), {OPEN, KNOWN, ADMIN}),
    ],
)
def test_scopes(caller: Caller, scopes: set[str]) -> None:
    assert caller.scopes == scopes
    assert caller.is_admin == (ADMIN in scopes)
    for scope in (OPEN, KNOWN, PUBLISH, SUBSCRIBE, ADMIN):
        if scope in scopes:
            caller.check_scope(scope)
        else:
            with pytest.raises(Unauthorized, match=f"the scope {scope} is missing") as caught:
                caller.check_scope(scope)
            assert caught.value.code == "not_allowed"


def test_without_topics_all_are_allowed() -> None:
    LOCAL.check_publish("a/b")
    LOCAL.check_publish_all(["a", "b"])
    LOCAL.check_subscribe("$SYS/#")


@pytest.mark.parametrize("topic", ["a/x", "b", "b/c/d"])
def test_topics_to_publish_to(topic: str) -> None:
    NARROW.check_publish(topic)


@pytest.mark.parametrize("topic", ["a", "a/x/y", "c"])
def test_topics_not_to_publish_to(topic: str) -> None:
    with pytest.raises(Unauthorized, match=rf"^narrow may not publish to '{topic}'$") as caught:
        NARROW.check_publish(topic)
    assert (caught.value.code, caught.value.where, caught.value.hint) == ("not_allowed", "topic", "its topics: 'a/+', 'b/#'")


def test_a_batch_names_the_first_that_is_not_allowed() -> None:
    NARROW.check_publish_all(["a/1", "b", "a/1"])
    with pytest.raises(Unauthorized, match="publish to 'c', the topic of message 2") as caught:
        NARROW.check_publish_all(["a/1", "a/1", "c", "d"])
    assert caught.value.where == "[2].topic"


@pytest.mark.parametrize(
    ("topic_filter", "is_allowed"), [("a/+", True), ("b/x/+", True), ("#", False), ("a/#", False), ("+/x", False)]
)
def test_filters_to_read_with(topic_filter: str, is_allowed: bool) -> None:
    assert NARROW.may_subscribe(topic_filter) is is_allowed
    if not is_allowed:
        with pytest.raises(Unauthorized, match="may not read"):
            NARROW.check_subscribe(topic_filter)


def test_all_topics_by_a_filter_are_not_those_of_the_gateway() -> None:
    caller = Caller("x", SUBSCRIBE, topics=("#",))
    assert caller.may_subscribe("a/#")
    assert not caller.may_subscribe("$SYS/#")


def test_its_end() -> None:
    caller = Caller("x", PUBLISH, expires_ms=1000)
    assert not caller.has_ended(999)
    assert caller.has_ended(1000)
    assert not LOCAL.has_ended(1 << 60)
    other = Caller("y", PUBLISH)
    other.is_over = True
    assert other.has_ended(0)


def test_a_token() -> None:
    caller = Token("pump", b"", (SUBSCRIBE,), (), 0, 5).caller()
    assert (caller.name, caller.topics, caller.expires_ms) == ("the token 'pump'", None, 5)
    assert caller.scopes == {OPEN, KNOWN, SUBSCRIBE}
    assert Token("pump", b"", (SUBSCRIBE,), ("a",), 0, None).caller().topics == ("a",)


def test_a_secret() -> None:
    secret = secret_of(bytes(range(32)))
    assert secret == "egw_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len(digest_of(secret)) == 32
    assert digest_of(secret) != digest_of(secret[:-1])
    assert digest_of("\udcff")  # what a header may hold


@pytest.mark.parametrize("name", ["a", "Pump-7_x.y", "x" * NAME_BYTES_MAX])
def test_a_name(name: str) -> None:
    assert check_token_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a\n", "x" * (NAME_BYTES_MAX + 1)])
def test_no_name(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_token_name(name)
    assert caught.value.code == "bad_token_name"


def test_scopes_in_their_order() -> None:
    assert check_scopes(("admin", "publish", "publish")) == (PUBLISH, ADMIN)


@pytest.mark.parametrize("scopes", [(), ("",), ("publish", "root"), ("open",), ("known",)])
def test_no_scopes(scopes: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        check_scopes(scopes)
    assert caught.value.code == "bad_scope"


@pytest.mark.parametrize("seconds", [0, -1, 0.5, TOKEN_EXPIRY_S_MAX + 1, float("nan"), float("inf")])
def test_no_expiry(seconds: float) -> None:
    with pytest.raises(RequestError) as caught:
        check_expiry_s(seconds)
    assert caught.value.code == "bad_expiry"


def test_an_expiry() -> None:
    assert check_expiry_s(90 * 86_400) == 90 * 86_400
