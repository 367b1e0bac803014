"""Mutated answers of devices: bits flipped, bytes changed, cut, repeated, added."""

from __future__ import annotations

import random
from typing import Any, overload

from hypothesis import strategies as st


def mutate(sound: bytes, source: random.Random) -> bytes:
    """One answer that differs from a sound one, by one to four changes."""
    made = bytearray(sound)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        place = source.randrange(len(made) + 1)
        change = source.randrange(6)
        if change == 0 and place < len(made):
            made[place] ^= 1 << source.randrange(8)
        elif change == 1 and place < len(made):
            made[place] = source.choice((0, 1, 0x7F, 0x80, 0xFF, 0x22, 0x2C, 0x30, 0x39, source.randrange(256)))
        elif change == 2:
            del made[place : place + source.randrange(1, 9)]
        elif change == 3:
            made[place:place] = source.randbytes(source.randrange(1, 9))
        elif change == 4:
            made[place:place] = made[source.randrange(len(made) + 1) :][: source.randrange(1, 17)]
        else:
            del made[place:]
    return bytes(made)


@overload
def mutated(sound: bytes) -> st.SearchStrategy[bytes]: ...
@overload
def mutated(sound: bytes, count: int) -> st.SearchStrategy[list[bytes]]: ...
def mutated(sound: bytes, count: int = 0) -> st.SearchStrategy[Any]:
    """One mutated answer, or a list of so many from one seed, which is what makes a million of them affordable."""
    seeds = st.integers(min_value=0, max_value=2**64)
    if not count:
        return seeds.map(lambda seed: mutate(sound, random.Random(seed)))

    def many(seed: int) -> list[bytes]:
        source = random.Random(seed)
        return [mutate(sound, source) for _ in range(count)]

    return seeds.map(many)
