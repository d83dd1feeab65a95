"""Requests of kafka-python as the plain data that the brokers take."""

from __future__ import annotations

from typing import Any

from ksim.broker.batches import Batch
from ksim.wire.batches import read_batches
from ksim.wire.errors import WireError
from ksim.wire.server import as_data

Data = dict[str, Any]


def request_data(raw: Any) -> Data:
    """Every field by its name; the records of a Produce request are read as batches."""
    data = as_data(raw)
    for topic in data.get("topic_data", ()):
        for item in topic["partition_data"]:
            item["records"] = _batches(item["records"])
    return data


def _batches(records: Any) -> list[Batch] | None:
    try:
        return list(read_batches(bytes(records or b"")))
    except WireError:
        return None
