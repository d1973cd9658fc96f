"""edgegw/cli/option_types.py"""

import argparse

import pytest

from edgegw.cli.option_types import count_from_0, count_from_1, seconds


def test_numbers() -> None:
    assert [seconds("0"), seconds("1.5"), count_from_0("0"), count_from_0("12"), count_from_1("1")] == [0, 1.5, 0, 12, 1]


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf"])
def test_no_seconds(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a number from 0"):
        seconds(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", "0"])
def test_no_counts(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a number from 1"):
        count_from_1(text)
    if text != "0":
        with pytest.raises(argparse.ArgumentTypeError, match="not a number from 0"):
            count_from_0(text)
