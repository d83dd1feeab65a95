"""Which topics patterns take."""

from __future__ import annotations

import pytest

from ksim.core.patterns import wanted_topics

KNOWN = ("__consumer_offsets", "a-1", "a-2", "b-1")


@pytest.mark.parametrize(
    ("named", "whitelist", "blacklist", "wanted"),
    [
        (("x",), None, None, ("x",)),
        (("x",), None, "x", ("x",)),
        ((), "^a-", None, ("a-1", "a-2")),
        (("x",), "^a-", "2$", ("a-1", "x")),
        (("a-2",), "^a-", "2$", ("a-1", "a-2")),
        ((), ".*", None, ("a-1", "a-2", "b-1")),
        ((), "-", "^a", ("b-1",)),
    ],
)
def test_the_blacklist_goes_before_the_whitelist(
    named: tuple[str, ...], whitelist: str | None, blacklist: str | None, wanted: tuple[str, ...]
) -> None:
    assert wanted_topics(named, whitelist, blacklist, KNOWN) == wanted
