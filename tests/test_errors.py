"""What errors look like on a terminal."""

import pytest

from edgegw.errors import ConfigError, Fault, GatewayError, printable


def test_an_error_is_one_line() -> None:
    assert GatewayError("code", "what", "hint").line() == "code: what (hint)"
    assert GatewayError("code", "what").line() == "code: what"
    assert GatewayError("code", "a\nb\x1b[2J\u2028", "c\r").line() == "code: a\\nb\\x1b[2J\\u2028 (c\\r)"


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("f.toml", 3, "http.listen", "is wrong"), "f.toml:3: http.listen: is wrong"),
        (Fault("f.toml", None, "", "is wrong"), "f.toml: is wrong"),
        (Fault("f\n.toml", 3, "", "is\nwrong"), "f\\n.toml:3: is\\nwrong"),
    ],
)
def test_a_fault_is_one_line(fault: Fault, text: str) -> None:
    assert str(fault) == text


def test_a_configuration_error_may_have_no_faults() -> None:
    assert ConfigError("data_unwritable", "what").faults == ()


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Grüße, 世界 🙂 …") == "Grüße, 世界 🙂 …"
    assert printable("\udcff") == "\\udcff"
