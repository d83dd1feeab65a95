"""The fast way to text and back says what plain data says, for every value there is."""

from __future__ import annotations

import json
from enum import StrEnum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksim.core import events as e
from ksim.core import messages as m
from ksim.core.errors import KafkaError
from ksim.core.trace import MalformedTraceError, plain, value_of, values_by_name
from ksim.core.values import TopicPartition
from ksim.trace_text import text_of, value_of_text

INTEGERS = st.integers(-(2**63), 2**63)
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    str: st.text(max_size=6),
    bool: st.booleans(),
    bytes: st.binary(max_size=6),
    type(None): st.none(),
    TopicPartition: st.builds(TopicPartition, st.text(max_size=3), INTEGERS),
}


def of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of this type."""
    if hint in SIMPLE:
        return SIMPLE[hint]
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return st.one_of([of(each) for each in parts])
    if kind is tuple and parts[1:] == (Ellipsis,):
        return st.lists(of(parts[0]), max_size=2).map(tuple)
    if kind is tuple:
        return st.tuples(*map(of, parts))
    if kind is list:
        return st.lists(of(parts[0]), max_size=2)
    if kind is dict:
        return st.dictionaries(of(parts[0]), of(parts[1]), max_size=2)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    hints = get_type_hints(hint)
    return st.deferred(lambda: st.builds(hint, **{name: of(hints[name]) for name in hints}))


@pytest.mark.parametrize("name", sorted(values_by_name()))
@settings(max_examples=30)
@given(data=st.data())
def test_text_is_that_of_plain_data_and_comes_back(name: str, data: st.DataObject) -> None:
    sample = data.draw(of(values_by_name()[name][0]))
    text = json.dumps(plain(sample), separators=(",", ":"))
    assert text_of(sample) == text
    assert value_of_text(text) == value_of(json.loads(text))


def test_numbers_that_are_more_than_numbers_are_written_as_such() -> None:
    response = m.HeartbeatResponse(KafkaError.REBALANCE_IN_PROGRESS)
    assert text_of(response) == '{"_":"HeartbeatResponse","error_code":27}'
    assert text_of([]) == "[]"


def test_a_field_that_an_older_release_did_not_know_has_its_default() -> None:
    text = '{"_":"FetchPartition","topic":"t","partition":1,"fetch_offset":5}'
    assert value_of_text(text) == m.FetchPartition("t", 1, 5, -1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]]",
        "1.5",
        '{"_":"FetchPartition","topic":"t","partition":1,"fetch_offset":1.5}',
        '{"_":"FetchPartition","topic":"t","partition":1,"fetch_offset":NaN}',
        '{"_":"Nobody"}',
        '{"_":["TimerFired"]}',
        '{"_":{}}',
        '{"_":"TimerFired","more":1}',
        '{"_":"Mark","topic":"t"}',
        '{"b64":"not base64!"}',
        '{"b64":5}',
        '{"tp":[1]}',
        '{"tp":7}',
        '{"map":[1]}',
        '{"map":[[{"list":[]},1]]}',
        "{}",
        "[" * 100_000,
        '{"tp":' * 100_000,
        "9" * 5_000,
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(MalformedTraceError):
        value_of_text(text)


def test_what_a_trace_cannot_hold_is_misuse() -> None:
    for thing in ({1}, e.Mark, object()):
        with pytest.raises(TypeError):
            text_of(thing)
