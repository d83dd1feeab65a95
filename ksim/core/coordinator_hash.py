"""Java's hash of a string, and the places where Kafka's classic groups depend on it.

Where Kafka's choice follows the hash order of random member ids, nothing but chance is behind it:
those choices are drawn from a counter with `draw`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

OFFSETS_TOPIC_PARTITIONS: Final = 50

_WORD: Final = 2**64 - 1
_HALF_WORD: Final = 2**32 - 1
_HASH_BITS: Final = 32


def java_string_hash(text: str) -> int:
    """`String.hashCode`: over UTF-16 units, a signed 32-bit number."""
    units = text.encode("utf-16-le", "surrogatepass")
    found = 0
    for at in range(0, len(units), 2):
        found = (31 * found + units[at] + (units[at + 1] << 8)) & 0xFFFFFFFF
    return found - 2**32 if found >= 2**31 else found


def group_partition(group_id: str, partitions: int = OFFSETS_TOPIC_PARTITIONS) -> int:
    """The partition of `__consumer_offsets` that keeps a group (Kafka `Utils.abs`)."""
    found = java_string_hash(group_id)
    return (0 if found == -(2**31) else abs(found)) % partitions


def hash_map_order(keys: Iterable[str]) -> list[str]:
    """The order in which a `java.util.HashMap` that grew by these keys iterates."""
    names = list(dict.fromkeys(keys))
    table = 16
    while len(names) > table * 3 // 4:
        table *= 2

    def bucket(name: str) -> int:
        found = java_string_hash(name) & 0xFFFFFFFF
        return (found ^ found >> 16) & (table - 1)

    return sorted(names, key=bucket)


def scala_map_order(keys: Iterable[str]) -> list[str]:
    """The order in which Scala 2.13's `immutable.HashMap` with these keys iterates."""
    return _trie_order(list(dict.fromkeys(keys)), 0)


def _trie_order(names: list[str], shift: int) -> list[str]:
    """Each node of the trie shows its own entries first, and then those of the nodes below."""
    slots: dict[int, list[str]] = {}
    for name in names:
        slots.setdefault(_scala_hash(name) >> shift & 31, []).append(name)
    held = [slots[at] for at in sorted(slots)]
    own = [each[0] for each in held if len(each) == 1]
    deeper = [each for each in held if len(each) > 1]
    if shift >= _HASH_BITS:
        return names
    return own + [name for each in deeper for name in _trie_order(each, shift + 5)]


def _scala_hash(name: str) -> int:
    """Scala's `Hashing.improve` of Java's hash."""
    found = java_string_hash(name)
    found = found + ~(found << 9) & _HALF_WORD
    found ^= found >> 14
    found = found + (found << 4) & _HALF_WORD
    return found ^ found >> 10


def draw(seed: int, count: int) -> int:
    """The `count`-th number of the stream of `seed`, 64 bits (splitmix64)."""
    mixed = (seed + (count + 1) * 0x9E3779B97F4A7C15) & _WORD
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _WORD
    return mixed ^ mixed >> 31
