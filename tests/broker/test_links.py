"""What is cut, held or refused, and for whom."""

from __future__ import annotations

from ksim.broker.links import Links, Passage


def test_links_are_open_unless_told_otherwise() -> None:
    links = Links()
    assert links.passage("a", 1) == Passage.OPEN
    links.cut("a", 1)
    links.hold("a", 2)
    assert [links.passage("a", node) for node in (1, 2, 3)] == [
        Passage.LOST, Passage.HELD, Passage.OPEN,
    ]  # fmt: skip
    assert links.passage("b", 1) == Passage.OPEN
    links.release("a", 2)
    links.heal("a", 1)
    assert {links.passage("a", node) for node in (1, 2)} == {Passage.OPEN}


def test_a_paused_broker_holds_everybody_and_loses_what_is_cut() -> None:
    links = Links()
    links.pause(1)
    links.cut("a", 1)
    assert (links.passage("a", 1), links.passage("b", 1)) == (Passage.LOST, Passage.HELD)
    assert links.is_paused(1)
    links.resume(1)
    assert (links.passage("b", 1), links.is_paused(1)) == (Passage.OPEN, False)


def test_a_refused_client_is_refused_everywhere_until_it_is_admitted() -> None:
    links = Links()
    links.hold("a", 1)
    links.refuse("a")
    assert {links.passage("a", node) for node in (1, 2)} == {Passage.REFUSED}
    links.admit("a")
    assert links.passage("a", 2) == Passage.OPEN
