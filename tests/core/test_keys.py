"""The index of keys: finds what a dict would find, in a sixth of its memory."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from edgegw.core.keys import DIGEST_BYTES, KeyIndex, digest, fingerprint
from edgegw.core.record import JSON, OCTETS


def test_digests_tell_keys_apart() -> None:
    keys = [str(n) for n in range(10_000)]
    assert len({digest(key) for key in keys}) == len(keys)
    assert {len(digest(key)) for key in keys} == {DIGEST_BYTES}
    assert digest("ä") == digest("ä")


def test_fingerprints_tell_topics_types_and_bodies_apart() -> None:
    seen = {
        fingerprint("a", OCTETS, b"1"),
        fingerprint("b", OCTETS, b"1"),
        fingerprint("a", JSON, b"1"),
        fingerprint("a", OCTETS, b"2"),
        fingerprint("a", OCTETS, b""),
        fingerprint("", OCTETS, b"1a"),
    }
    assert len(seen) == 6
    assert fingerprint("a", OCTETS, b"1") in seen


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=600))
def test_it_behaves_like_a_dict_above_the_floor(steps: list[tuple[int, int]]) -> None:
    index = KeyIndex()
    seen: dict[bytes, int] = {}
    for seq, (key, raises) in enumerate(steps, 1):
        if raises == 3:
            index.floor = max(index.floor, seq - 40)
        index.put(digest(str(key)), seq)
        seen[digest(str(key))] = seq
        wanted = {name: at for name, at in seen.items() if at > index.floor}
        assert {name: at for name in seen if (at := index.get(name)) is not None} == wanted
    assert index.get(digest("never")) is None


def test_digests_that_collide_in_a_slot_stay_apart() -> None:
    index = KeyIndex()
    # The low bits choose the slot: all of these begin in the same one.
    digests = [(n << 32 | 0b11).to_bytes(8, "little") + bytes(8) for n in range(40)]
    for seq, name in enumerate(digests, 1):
        index.put(name, seq)
    assert [index.get(name) for name in digests] == list(range(1, 41))


def test_what_left_the_window_makes_room() -> None:
    index = KeyIndex()
    for seq in range(1, 20_001):
        index.put(digest(str(seq)), seq)
        index.floor = max(0, seq - 100)
    assert len(index) < 1000
    assert index.get(digest("20000")) == 20_000
    assert index.get(digest("19900")) is None
    assert index.get(digest("19901")) == 19_901


def test_a_hundred_thousand_keys_take_little_memory() -> None:
    index = KeyIndex()
    for seq in range(1, 100_001):
        index.put(digest(str(seq)), seq)
    assert sum(sys.getsizeof(getattr(index, name)) for name in KeyIndex.__slots__) < 4.5 * 2**20
    assert [index.get(digest(str(seq))) for seq in (1, 77_777, 100_000)] == [1, 77_777, 100_000]
