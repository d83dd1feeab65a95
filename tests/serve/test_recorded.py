"""`ksim serve --record`: coordinators replay, and each member has a file of what was seen of it."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.coordinator import Coordinator
from ksim.core.coordinator_state import CoordinatorConfig
from ksim.core.subscription import encode_subscription
from ksim.recording import Recording, read_recording
from ksim.recording_schema import schema
from ksim.replay import ReplayVerdict, replay_file
from ksim.serve.recorded import ServeRecorder
from tests.cli.commands import ksim, refusal
from tests.cli.consuming import Consuming, fill
from tests.serve.served import Served
from tests.test_recording_schema import fits


def kinds(found: Recording) -> tuple[list[str], list[str]]:
    """What it asked, and what it was answered."""
    asked = [entry.fact["request"]["_"] for entry in found.entries if entry.fact is not None]
    told = [order for entry in found.entries for order in entry.orders]
    return asked, [order["response"]["_"] for order in told if order["_"] == "SendResponse"]


def test_two_members_and_their_coordinator(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    options = (
        "--topic",
        "t:2",
        "--record",
        str(folder),
        "-X",
        "group.initial.rebalance.delay.ms=0",
    )
    with Served(tmp_path / "serve.log", *options) as cluster:
        fill(cluster.bootstrap, 10)
        with Consuming(tmp_path, cluster.bootstrap, "-X", "client.id=one") as one:
            one.has_told("assigned")
            with Consuming(tmp_path, cluster.bootstrap, "-X", "client.id=two") as two:
                two.has_told("assigned")
                two.process.terminate()
                two.ends_with(0)
            one.process.terminate()
            one.ends_with(0)
    (coordinator,) = folder.glob("broker-*.ksim")
    outcome = replay_file(coordinator)
    assert outcome.verdict == ReplayVerdict.SAME
    assert outcome.entries > 20
    members = sorted(folder.glob("[ot][nw][eo]-*.ksim"))
    assert [path.name[:3] for path in members] == ["one", "two"]
    for path in members:
        found = read_recording(path)
        assert found.complete
        assert replay_file(path).verdict == ReplayVerdict.UNSUPPORTED
        asked, told = kinds(found)
        # The first join has no id yet, the second one has; each is answered.
        assert asked[:2] == ["JoinGroupRequest"] * 2
        assert asked[-1] == "LeaveGroupRequest"
        assert [each.removesuffix("Request") for each in sorted(asked)] == [
            each.removesuffix("Response") for each in sorted(told)
        ]
        assert {"SyncGroupRequest", "HeartbeatRequest", "OffsetFetchRequest"} <= set(asked)
        states = [each["to_state"] for entry in found.entries for each in entry.orders
                  if each["_"] == "StateChanged"]  # fmt: skip
        assert "Stable" in states
        for line in path.read_text("ascii").splitlines():
            assert fits(json.loads(line), schema()), line
    found = ksim("replay", str(folder))
    assert found.returncode == 5
    assert "1 SAME, 2 UNSUPPORTED" in found.stdout
    assert found.stderr.count("vantage 'broker'; this replays coordinator, member") == 2
    copies = tmp_path / "masked"
    assert ksim("mask", str(folder), "-o", str(copies)).returncode == 0
    text = "".join(path.read_text() for path in copies.iterdir())
    assert "one-" not in text
    assert sorted(replay_file(path).verdict for path in copies.iterdir()) == [
        "SAME", "UNSUPPORTED", "UNSUPPORTED",
    ]  # fmt: skip


def test_a_directory_that_cannot_be_made_is_a_mistake() -> None:
    line = refusal("serve", "--record", "/dev/null/x")
    assert "--record /dev/null/x: Not a directory" in line


def test_a_disk_that_is_gone_is_said_once_and_serving_goes_on(tmp_path: Path, caplog: Any) -> None:
    recorder = ServeRecorder(tmp_path / "absent", {}, 1)
    one, two = recorder.listeners("broker-1/2", dict)
    one.on_step(1, None, ())
    two.on_step(1, None, ())
    recorder.listeners("broker-1/3", dict)
    recorder.close()
    (line,) = caplog.messages
    assert "No such file or directory; goes on without any" in line


def test_user_data_is_hidden_and_what_was_unlike_stays_so(tmp_path: Path) -> None:
    recorder = ServeRecorder(tmp_path, {}, 0)
    machine = Coordinator(CoordinatorConfig(initial_rebalance_delay_ms=0), 0)
    listeners = recorder.listeners("broker-1/0", machine.snapshot)
    described = e.RequestArrived(9, m.DescribeGroupsRequest(("g",)), "c", "m")
    replayed = m.JoinGroupRequest("g", 6000, 6000, "", "i", "consumer", ())
    facts: list[Any] = [e.LogReplayed(()), described, described]
    for at, secret in enumerate((b"token-1", b"token-1", b"token-2"), 1):
        data = encode_subscription(["t"], user_data=secret)
        facts.insert(-1, e.RequestArrived(
            at, replace(replayed, protocols=(("range", data),)), "c", f"m-{at}"
        ))  # fmt: skip
    for now_ms, fact in enumerate(facts):
        orders = machine.step(fact, now_ms=now_ms)
        for each in listeners:
            each.on_step(now_ms, fact, orders)
    recorder.close()
    copies = tmp_path / "masked"
    assert ksim("mask", str(tmp_path), "-o", str(copies)).stderr == ""
    files = [*tmp_path.glob("*.ksim"), *copies.iterdir()]
    for path in files:
        found = re.findall(r'"b64":"([^"]*)"', path.read_text())
        data = b" ".join(map(base64.b64decode, found))
        assert b"token" not in data
        assert b"******" in data
        if path.name in ("broker-1-0.ksim", "client-1.ksim"):
            assert replay_file(path).verdict == ReplayVerdict.SAME
            assert b"*******" in data
            assert b"******+" in data


def test_what_another_cluster_recorded_stays(tmp_path: Path) -> None:
    machine = Coordinator(CoordinatorConfig(), 0)
    for _ in range(2):
        recorder = ServeRecorder(tmp_path, {}, 0)
        recorder.listeners("broker-1/0", machine.snapshot)
        recorder.close()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["broker-1-0.2.ksim", "broker-1-0.ksim"]


def test_two_clusters_that_begin_at_once_have_files_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looks before the other one has made its file."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    machine = Coordinator(CoordinatorConfig(), 0)
    both = [ServeRecorder(tmp_path, {}, 0) for _ in range(2)]
    for recorder in both:
        recorder.listeners("broker-1/0", machine.snapshot)
    for recorder in both:
        recorder.close()
    paths = sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["broker-1-0.2.ksim", "broker-1-0.ksim"]
    assert [read_recording(path).complete for path in paths] == [True, True]
