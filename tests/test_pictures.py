"""What is made of a trace: digest, timeline and narrative."""

from __future__ import annotations

from xml.etree import ElementTree

from ksim import observations as o
from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.subscription import encode_assignment
from ksim.core.values import TopicPartition
from ksim.digest import TraceDigest
from ksim.narrative import Narrative
from ksim.timeline import Timeline

TP = TopicPartition("t<1>", 0)
SVG = "{http://www.w3.org/2000/svg}"


def digest(*entries: tuple[str, int, object, list[object]]) -> str:
    found = TraceDigest()
    for entry in entries:
        found.add(*entry)
    return found.hexdigest()


def test_a_digest_covers_source_time_content_and_order() -> None:
    fact, other = e.RequestFailed(1, "a"), e.RequestFailed(1, "b")
    base = [("a", 1, fact, [e.Closed()]), ("b", 2, e.TimerFired(), [])]
    variants = [
        base,
        base[::-1],
        [("a", 2, fact, [e.Closed()]), base[1]],
        [("c", 1, fact, [e.Closed()]), base[1]],
        [("a", 1, other, [e.Closed()]), base[1]],
        [("a", 1, fact, []), base[1]],
        base[:1],
    ]
    assert len({digest(*entries) for entries in variants}) == len(variants)
    assert digest(*base) == digest(*base)


def test_a_digest_tells_contents_of_tuples_apart() -> None:
    one = e.Paused((TopicPartition("a", 1), TopicPartition("b", 2)))
    other = e.Paused((TopicPartition("a", 1),))
    assert digest(("a", 1, one, [])) != digest(("a", 1, other, []))


def test_a_long_trace_is_hashed_in_blocks() -> None:
    entries = [("a", at, e.RequestFailed(at, "x"), []) for at in range(5_000)]
    assert digest(*entries) == digest(*entries)
    assert digest(*entries[:-1]) != digest(*entries)


def drawn() -> ElementTree.Element:
    picture = Timeline("a <b> & c")
    picture.see("g-1", 0, o.MemberLife("g-1", "g", "started", ""), ())
    join = m.JoinGroupRequest("g", 1, 1, "", None, "consumer", ())
    picture.see("g-1", 5, e.TimerFired(), [e.SendRequest(1, 1, "group", join, 1)])
    assign = e.AssignPartitions(1, (e.Assigned(TP.topic, 0, 1, 0),))
    picture.see("g-1", 10, e.TimerFired(), [assign])
    picture.see("faults", 20, o.FaultStruck("pause", "g-1", 30), ())
    picture.see("g-1", 40, e.TimerFired(), [e.LosePartitions(1, (TP,), "late")])
    picture.see("g-1", 100, o.MemberLife("g-1", "g", "crashed", ""), ())
    page = picture.html()
    assert "<b>" not in page.replace("<body>", "")
    return ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])


def test_a_timeline_has_lanes_bands_and_faults() -> None:
    svg = drawn()
    texts = [item.text for item in svg.iter(f"{SVG}text")]
    assert {"faults", "g-1", "t<1>-0", "pause g-1"} <= set(texts)
    titles = [item.text or "" for item in svg.iter(f"{SVG}title")]
    assert "pause g-1 at 0.02 s" in titles
    assert "t<1>-0 owned by g-1, generation 1: 0.01 s to 0.04 s" in titles
    assert "late: 0.04 s to 0.1 s" in titles
    faults = [item for item in svg.iter(f"{SVG}rect") if item.get("class") == "fault"]
    assert len(faults) == 1


def test_a_narrative_tells_rebalance_by_rebalance() -> None:
    story = Narrative()
    request = m.HeartbeatRequest("g", 1, "m-1", None)
    story.see("b", 1, e.RequestArrived(1, request, "g-1", "m-1"), [])
    changed = e.StateChanged("g", "Empty", "PreparingRebalance", 0, (), "m-1 joined")
    story.see("b", 1_000, e.TimerFired(), [changed])
    member = e.GroupRecordMember("m-1", None, "g-1", "/h", 1, 1, b"", encode_assignment([TP]))
    record = e.GroupRecord("g", "consumer", 4, "range", "m-1", 0, (member,))
    story.see("b", 2_000, e.TimerFired(), [e.AppendRecords(1, (record,))])
    story.see("faults", 3_000, o.FaultStruck("crash", "g-1", 0), [])
    assert [line.strip() for line in story.lines] == [
        "1.000 s  rebalance of g at b: g-1 joined",
        "2.000 s  generation 4 assigns g-1 t<1>[0]",
        "3.000 s  fault: crash g-1",
    ]
