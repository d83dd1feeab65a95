"""All messages of a member are compiled before the first of them is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ksim.core.trace import values_by_name
from ksim.trace_text import _WRITERS, know_all_values
from ksim.wire.compiled import SAMPLES
from ksim.wire.requests import ENCODERS

COUNTED = """
import builtins
from ksim.wire.compiled import SAMPLES, VERSION_DATA, compile_messages
from ksim.wire.requests import encode_request
{first}
met, real = [], compile
def noting(source, filename, *rest, **named):
    met.append(filename)
    return real(source, filename, *rest, **named)
builtins.compile = noting
table = VERSION_DATA({broker})
for sample in SAMPLES:
    message = encode_request(sample)
    message.encode(version=table.api_version(message))
print(len([name for name in met if name.startswith("<codegen")]))
"""


def test_there_is_a_sample_of_each_request_that_a_member_sends() -> None:
    assert {type(sample) for sample in SAMPLES} == set(ENCODERS)


@pytest.mark.parametrize(
    ("first", "broker", "compiled"),
    [
        ("compile_messages()", "(4, 0)", False),
        ("", "(4, 0)", True),  # or nothing would be seen here
        ("compile_messages()", "(2, 4)", True),  # an old broker is spoken to in other versions
    ],
)
def test_nothing_is_compiled_any_more_when_a_message_is_sent(
    first: str, broker: str, compiled: bool
) -> None:
    """In a process of its own: what any test has compiled stays."""
    script = COUNTED.format(first=first, broker=broker)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 0) == compiled


def test_all_values_of_a_trace_are_known() -> None:
    know_all_values()
    assert {cls for cls, _ in values_by_name().values()} <= _WRITERS.keys()
