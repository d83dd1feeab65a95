"""Group requests of the wire as requests of the core."""

from __future__ import annotations

from types import SimpleNamespace

from ksim.core import messages as m
from ksim.serve.groups import READERS


def test_a_group_that_is_named_twice_is_deleted_once() -> None:
    raw = SimpleNamespace(groups_names=["a", "b", "a"])
    found = READERS["DeleteGroups"](raw, 2)
    assert found == [m.DeleteGroupsRequest(("a",)), m.DeleteGroupsRequest(("b",))]
