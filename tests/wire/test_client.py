"""Exact versions from plain data, read back by the server's side."""

from __future__ import annotations

import pytest

from ksim.wire.client import read_response, rewritten, write_request
from ksim.wire.errors import WireError
from ksim.wire.server import read_header, read_request, write_response


@pytest.mark.parametrize("version", range(5))
def test_a_request_and_its_answer_cross_both_ways(version: int) -> None:
    asked = {"group_id": "g", "generation_id": 3, "member_id": "m"}
    frame = write_request("Heartbeat", version, 9, "me", asked)[4:]
    header = read_header(frame)
    assert header[:4] == (12, version, 9, "me")
    raw = read_request(header, frame)
    assert (raw.group_id, raw.generation_id, raw.member_id) == ("g", 3, "m")
    answer = write_response(header, {"error_code": 27})[4:]
    correlation_id, found = read_response("Heartbeat", version, answer)
    assert (correlation_id, found["error_code"]) == (9, 27)
    assert found == rewritten("Heartbeat", version, {"error_code": 27})


def test_an_answer_that_is_cut_off_is_refused() -> None:
    with pytest.raises(WireError, match="JoinGroup 9"):
        read_response("JoinGroup", 9, bytes(7))
