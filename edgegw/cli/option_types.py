"""Types of options that several commands have; what is wrong becomes argparse's error."""

import argparse
import math


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def count_from_1(text: str) -> int:
    """A whole number from 1."""
    return _count(text, 1)


def count_from_0(text: str) -> int:
    """A whole number from 0."""
    return _count(text, 0)


def _count(text: str, low: int) -> int:
    # Not isdigit alone: that holds for digits which int() refuses.
    if not (text.isascii() and text.isdigit()) or int(text) < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low}")
    return int(text)
