"""Findings, and bytes for people."""

import pytest

from edgegw.cli.findings import fail, ok, size_text, warn


def test_what_is_wrong_has_a_hint() -> None:
    assert [finding.status for finding in (ok("a", "b"), warn("a", "b", "c"), fail("a", "b", "c"))] == ["ok", "warn", "fail"]
    assert ok("a", "b").hint == ""


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 1024, "1.5 MiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text
