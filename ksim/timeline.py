"""A picture of a run: one SVG in one HTML file, with nothing loaded from elsewhere.

Top to bottom on one axis of time: faults, a lane for each member with its states, a band for each
partition with its owner as the application sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.values import TopicPartition

WIDTH = 1_200
LEFT = 150
RIGHT = 30
ROW = 22
GAP = 6
TICKS = 10
PALETTE = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#997700",
    "#44aa99",
    "#cc6600",
    "#6699cc",
)
STATE_COLOURS = {
    "joining": "#f4a582",
    "syncing": "#fddbc7",
    "stable": "#a6dba0",
    "revoking": "#ffe08a",
    "lost": "#d6604d",
    "paused": "#b2abd2",
    "unjoined": "#eeeeee",
}


@dataclass(slots=True)
class Span:
    """Something that lasts; `end_ms` is -1 while it does."""

    start_ms: int
    end_ms: int
    label: str
    title: str


@dataclass(slots=True)
class Lane:
    """Spans one after the other: the next ends the one before."""

    spans: list[Span] = field(default_factory=list[Span])

    def begin(self, now_ms: int, label: str, title: str = "") -> None:
        self.stop(now_ms)
        self.spans.append(Span(now_ms, -1, label, title or label))

    def stop(self, now_ms: int) -> None:
        if self.spans and self.spans[-1].end_ms < 0:
            self.spans[-1].end_ms = now_ms

    @property
    def now(self) -> str:
        open_span = bool(self.spans) and self.spans[-1].end_ms < 0
        return self.spans[-1].label if open_span else ""


class Timeline:
    """Watch a run with `see`, then write `html`."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.members: dict[str, Lane] = {}
        self.partitions: dict[TopicPartition, Lane] = {}
        self.faults: list[Span] = []
        self.generations: list[tuple[int, int]] = []
        self.end_ms = 0
        self._owned: dict[str, list[TopicPartition]] = {}

    def see(self, source: str, now_ms: int, fact: Any, orders: Sequence[Any]) -> None:
        """One step or observation of the run."""
        self.end_ms = max(self.end_ms, now_ms)
        if isinstance(fact, o.FaultStruck):
            self.faults.append(
                Span(now_ms, now_ms + fact.for_ms, fact.name, f"{fact.name} {fact.target}")
            )
        elif isinstance(fact, o.MemberLife):
            self._life(now_ms, fact)
        elif isinstance(fact, e.PartitionsRevoked):
            self._release(source, now_ms)
        for order in orders:
            self._order(source, now_ms, order)

    def _life(self, now_ms: int, fact: o.MemberLife) -> None:
        lane = self.members.setdefault(fact.member, Lane())
        if fact.what in ("crashed", "closed", "failed"):
            lane.stop(now_ms)
            self._release(fact.member, now_ms)
        elif fact.what == "paused":
            lane.begin(now_ms, "paused")
        elif fact.what == "started":
            lane.begin(now_ms, "unjoined")
        elif fact.what == "resumed":
            lane.begin(now_ms, "stable")

    def _order(self, source: str, now_ms: int, order: Any) -> None:
        if isinstance(order, e.StateChanged):
            if order.to_state == "CompletingRebalance":
                self.generations.append((now_ms, order.generation_id))
            return
        if not isinstance(order, e.MemberOrder):
            return
        lane = self.members.setdefault(source, Lane())
        match order:
            case e.SendRequest(request=m.JoinGroupRequest()):
                lane.begin(now_ms, "joining")
            case e.SendRequest(request=m.SyncGroupRequest()):
                lane.begin(now_ms, "syncing")
            case e.RevokePartitions():
                lane.begin(now_ms, "revoking")
            case e.LosePartitions():
                lane.begin(now_ms, "lost", order.reason)
                self._release(source, now_ms)
            case e.AssignPartitions():
                lane.begin(now_ms, "stable", f"generation {order.generation_id}")
                self._own(source, now_ms, order)
            case _:
                pass

    def _own(self, member: str, now_ms: int, order: e.AssignPartitions) -> None:
        owned = [TopicPartition(item.topic, item.partition) for item in order.partitions]
        self._owned[member] = owned
        for tp in owned:
            title = f"{tp} owned by {member}, generation {order.generation_id}"
            self.partitions.setdefault(tp, Lane()).begin(now_ms, member, title)

    def _release(self, member: str, now_ms: int) -> None:
        for tp in self._owned.pop(member, []):
            if self.partitions[tp].now == member:
                self.partitions[tp].stop(now_ms)

    # Drawing

    def html(self) -> str:
        """The whole page."""
        svg = self._svg()
        return (
            "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
            f"<title>{escape(self.title)}</title>"
            "<style>body{font:14px system-ui,sans-serif;margin:1em}"
            "svg text{font:11px system-ui,sans-serif}</style></head>\n"
            f"<body><h1>{escape(self.title)}</h1>\n{svg}\n</body></html>\n"
        )

    def _x(self, at_ms: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * at_ms / max(self.end_ms, 1), 1)

    def _svg(self) -> str:
        parts: list[str] = []
        y = ROW
        y = self._draw_faults(parts, y)
        members = sorted(self.members)
        for name in members:
            y = self._draw_lane(parts, y, name, self.members[name], STATE_COLOURS)
        y += ROW // 2
        owners = {name: PALETTE[at % len(PALETTE)] for at, name in enumerate(members)}
        for tp in sorted(self.partitions):
            y = self._draw_lane(parts, y, str(tp), self.partitions[tp], owners)
        for at_ms, generation_id in self.generations:
            x = self._x(at_ms)
            parts.append(
                f"<line x1='{x}' x2='{x}' y1='{ROW}' y2='{y}' stroke='#333' stroke-dasharray='2 3'>"
                f"<title>generation {generation_id} at {at_ms / 1000} s</title></line>"
            )
        y = self._draw_axis(parts, y)
        y = self._draw_legend(parts, y, {**STATE_COLOURS, **owners})
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {y}' "
            f"width='{WIDTH}' height='{y}' role='img'>\n" + "\n".join(parts) + "\n</svg>"
        )

    def _draw_faults(self, parts: list[str], y: int) -> int:
        parts.append(f"<text x='4' y='{y + 15}'>faults</text>")
        for span in self.faults:
            x = self._x(span.start_ms)
            width = max(3.0, self._x(min(span.end_ms, self.end_ms)) - x)
            parts.append(
                f"<rect class='fault' x='{x}' y='{y}' width='{width}' height='{ROW - GAP}' "
                f"fill='#b2182b'><title>{escape(span.title)} at {span.start_ms / 1000} s</title>"
                f"</rect><text x='{x + 5}' y='{y - 3}'>{escape(span.title)}</text>"
            )
        return y + ROW

    def _draw_lane(
        self, parts: list[str], y: int, name: str, lane: Lane, colours: dict[str, str]
    ) -> int:
        parts.append(f"<text x='4' y='{y + 13}'>{escape(name)}</text>")
        for span in lane.spans:
            end_ms = self.end_ms if span.end_ms < 0 else span.end_ms
            x = self._x(span.start_ms)
            width = max(0.5, self._x(end_ms) - x)
            parts.append(
                f"<rect x='{x}' y='{y}' width='{width:.1f}' height='{ROW - GAP}' "
                f"fill='{colours.get(span.label, '#ccc')}'><title>{escape(span.title)}: "
                f"{span.start_ms / 1000} s to {end_ms / 1000} s</title></rect>"
            )
        return y + ROW

    def _draw_axis(self, parts: list[str], y: int) -> int:
        for tick in range(TICKS + 1):
            at_ms = self.end_ms * tick // TICKS
            parts.append(
                f"<text x='{self._x(at_ms) - 10}' y='{y + 14}'>{at_ms / 1000:.0f} s</text>"
            )
        return y + ROW

    def _draw_legend(self, parts: list[str], y: int, colours: dict[str, str]) -> int:
        for at, (name, colour) in enumerate(colours.items()):
            x = 10 + at % 10 * 115
            row_y = y + at // 10 * ROW
            parts.append(
                f"<rect x='{x}' y='{row_y}' width='14' height='14' fill='{colour}'/>"
                f"<text x='{x + 19}' y='{row_y + 12}'>{escape(name)}</text>"
            )
        return y + (len(colours) // 10 + 1) * ROW
