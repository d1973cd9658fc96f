"""edgegw/api/openapi_parts.py"""

from edgegw.api.openapi_parts import CODES, Operation, Reply, flag, header, named, query


def operation(method: str = "GET", path: str = "/x", scope: str = "known", **more: object) -> Operation:
    return Operation(method, path, "x", "state", scope, "", "", {200: Reply("", {})}, **more)  # type: ignore[arg-type]


def test_codes_follow_from_what_an_operation_is() -> None:
    assert "no_token" in operation().all_codes
    assert "no_token" not in operation(scope="open").all_codes
    assert "foreign_origin" not in operation().all_codes
    assert "foreign_origin" in operation("POST").all_codes
    assert "bad_path" in operation(path="/x/{name}").all_codes
    assert {"slow_body", "body_too_large"} <= set(operation("POST", body=(True, "", {})).all_codes)
    own = operation(codes=("beyond_end", "bad_http")).all_codes
    assert "beyond_end" in own
    assert len(set(own)) == len(own)


def test_every_code_has_a_status_of_a_refusal_and_a_meaning() -> None:
    assert all(400 <= status < 600 and about for status, about in CODES.values())


def test_parameters() -> None:
    assert query("raw", flag(), "a", example="1") == {
        "name": "raw",
        "in": "query",
        "description": "a",
        "schema": flag(),
        "example": "1",
    }
    assert header("X", {}, "a")["in"] == "header"
    assert named("a", "b")["required"] is True
