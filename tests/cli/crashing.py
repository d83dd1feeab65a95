"""`ksim` whose members break when the first marks are taken."""

from __future__ import annotations

from typing import Any

from ksim.cli.main import main
from ksim.core.events import MarksTaken
from ksim.core.member import Member

_step = Member.step


def _breaking(member: Member, fact: Any, *, now_ms: int) -> list[Any]:
    if isinstance(fact, MarksTaken):
        raise RuntimeError("planted: the owner breaks")
    return _step(member, fact, now_ms=now_ms)


if __name__ == "__main__":
    Member.step = _breaking  # type: ignore[method-assign]
    main()
