"""Errors as problems."""

import json

import pytest

from edgegw import errors
from edgegw.api.problems import CODE_STATUS, RETRY_AFTER_S, STATUS, problem_body, status_of
from edgegw.errors import Busy, Conflict, GatewayError, NotFound, RequestError, StoreError, StoreFull, TooLarge, Unauthorized


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("bad_topic", "x"), 400),
        (Unauthorized("foreign_host", "x"), 403),
        (NotFound("unknown_path", "x"), 404),
        (RequestError("method_not_allowed", "x"), 405),
        (RequestError("slow_head", "x"), 408),
        (RequestError("slow_body", "x"), 408),
        (Conflict("not_delivered", "x"), 409),
        (TooLarge("body_too_large", "x"), 413),
        (RequestError("unsupported_type", "x"), 415),
        (RequestError("unsupported_encoding", "x"), 415),
        (Conflict("key_reused", "x"), 422),
        (Busy("busy", "x"), 429),
        (GatewayError("internal", "x"), 500),
        (StoreFull("store_full", "x"), 503),
        (StoreError("store_failed", "x"), 503),
        (StoreError("deadline", "x"), 503),
        (Busy("connections_full", "x"), 503),
    ],
)
def test_statuses_are_those_of_the_contract(error: GatewayError, status: int) -> None:
    assert status_of(error) == status


def test_every_error_has_a_status() -> None:
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, GatewayError)]
    assert len(classes) > 5
    for kind in classes:
        assert 400 <= status_of(kind("x", "x")) < 600


def test_a_class_stands_before_those_it_is_one_of() -> None:
    seen: list[type[GatewayError]] = []
    for kind, _ in STATUS:
        assert not any(issubclass(kind, before) for before in seen), f"{kind} is never reached"
        seen.append(kind)


def test_what_may_be_tried_again_says_when() -> None:
    assert {429, 503} == set(RETRY_AFTER_S)
    assert all(isinstance(seconds, int) and seconds > 0 for seconds in RETRY_AFTER_S.values())


def test_statuses_of_codes_are_errors() -> None:
    assert all(400 <= status < 600 for status in CODE_STATUS.values())


def test_the_body() -> None:
    error = RequestError("bad_topic", "the topic is empty", "name one", where="[3].topic")
    assert json.loads(problem_body(error, 400, "id-1")) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "code": "bad_topic",
        "detail": "the topic is empty",
        "request_id": "id-1",
        "hint": "name one",
        "where": "[3].topic",
    }


def test_what_is_not_known_is_not_there() -> None:
    assert {"hint", "where"}.isdisjoint(json.loads(problem_body(StoreError("store_failed", "x"), 503, "id")))


def test_whatever_a_client_sent_comes_back_as_ascii() -> None:
    body = problem_body(RequestError("unknown_field", "there is no field '\ud800\x00ü'", where="\udcff"), 400, "id")
    assert body.isascii()
    assert json.loads(body)["where"] == "\udcff"
