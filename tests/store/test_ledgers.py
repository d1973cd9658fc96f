"""Consumers on disk."""

from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.cursor import Ledger, Terms
from edgegw.core.record import Gap
from edgegw.core.runs import merged
from edgegw.store.ledgers import pack_ledger, unpack_ledger

SEQS = st.integers(1, 2**48 - 1)
COUNTS = st.integers(0, 2**48)
WORDS = st.text(min_size=1, max_size=20)


@given(
    terms=st.builds(Terms, WORDS, WORDS, WORDS, COUNTS, st.floats(0.1, 86_400), COUNTS),
    numbers=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS),
    pairs=st.lists(st.tuples(SEQS, st.integers(0, 99)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=9),
    lost=st.dictionaries(WORDS, COUNTS, max_size=4),
    gaps=st.lists(st.builds(Gap, WORDS, SEQS, SEQS, COUNTS, WORDS), max_size=4).map(tuple),
    deliveries=st.dictionaries(SEQS, COUNTS, max_size=9),
)
def test_what_is_packed_comes_back(
    terms: Terms,
    numbers: tuple[int, int, int, int],
    pairs: list[tuple[int, int]],
    lost: dict[str, int],
    gaps: tuple[Gap, ...],
    deliveries: dict[int, int],
) -> None:
    floor, matched, acked, dead = numbers
    ledger = Ledger(7, terms, floor, matched, merged((), pairs), acked, dead, lost, gaps, deliveries)
    assert unpack_ledger(7, terms.name, pack_ledger(ledger)) == ledger


def test_a_long_run_of_settled_numbers_is_short() -> None:
    terms = Terms("c", "default", "#", 1, 1.0, 1)
    assert len(pack_ledger(Ledger(1, terms, 0, 10**9, ((2, 10**9),)))) < 60
