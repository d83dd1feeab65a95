"""What a recording keeps of the records that were fetched: nothing, digests, or all of it."""

from __future__ import annotations

import base64
import re
from enum import StrEnum
from hashlib import blake2b
from typing import Any, Final

from ksim.core.trace import Plain
from ksim.core.values import Payload, Record, SizedPayload, TopicPartition

KEY_BYTES: Final = 16
DIGEST_BYTES: Final = 8


class PayloadMode(StrEnum):
    """DIGEST: one keyed digest for each partition of a fetch. FULL: keys and values too."""

    DIGEST = "digest"
    NONE = "none"
    FULL = "full"


PAYLOADS: Final = tuple(PayloadMode)

# The text of a payload as it is written, where no name in it needs an escape.
_NUMBER: Final = r"(?:0|-?[1-9][0-9]{0,17}+)"
_DATA: Final = r'(?:null|"[A-Za-z0-9+/=]*+")'
_HEADER: Final = rf'\["[ !#-\[\]-~]*+",{_DATA}\]'
_HEADERS: Final = rf"\[(?:{_HEADER}(?:,{_HEADER})*+)?\]"
_RECORD: Final = rf"\[{_NUMBER},{_NUMBER},{_DATA},{_DATA},{_HEADERS}\]"
_PART: Final = (
    rf'\{{"topic":"[\w.-]*+","partition":{_NUMBER},"first":{_NUMBER},"last":{_NUMBER}'
    rf',"count":{_NUMBER}(?:,"bytes":{_NUMBER})?,"digest":"[0-9a-f]*+"'
    rf'(?:,"records":\[(?:{_RECORD}(?:,{_RECORD})*+)?\])?\}}'
)
USUAL: Final = re.compile(rf"\[(?:{_PART}(?:,{_PART})*+)?\]", re.ASCII)


class PayloadKeeper:
    """Turns the payloads of one recording into what it keeps.

    That two fetches of one recording brought the same can be told; what they brought cannot be
    found by trying, unless the key is known. Production writes it nowhere; of a simulated run,
    whose records are made up, it is the seed.
    """

    def __init__(self, mode: PayloadMode, key: bytes) -> None:
        self._mode = mode
        self._key = key

    def keep(self, payload: Payload) -> Plain:
        """What stands beside the entry; None: nothing."""
        if self._mode == PayloadMode.NONE:
            return None
        sized = payload if isinstance(payload, SizedPayload) else SizedPayload()
        return [self._part(tp, records, sized) for tp, records in payload.items() if records]

    def _part(
        self, tp: TopicPartition, records: tuple[Record, ...], sized: SizedPayload
    ) -> dict[str, Any]:
        found: dict[str, Any] = {
            "topic": tp.topic,
            "partition": tp.partition,
            "first": records[0].offset,
            "last": records[-1].offset,
            "count": len(records),
        }
        if tp in sized.sizes:
            found["bytes"] = sized.sizes[tp]
        # The checksums of the batches stand for their bytes: nothing is done for each record.
        content = sized.checksums.get(tp) or repr(records).encode()
        found["digest"] = blake2b(content, key=self._key, digest_size=DIGEST_BYTES).hexdigest()
        if self._mode == PayloadMode.FULL:
            found["records"] = [_record(each) for each in records]
        return found


def _record(found: Record) -> list[Any]:
    headers = [[name, _text(value)] for name, value in found.headers]
    return [found.offset, found.timestamp_ms, _text(found.key), _text(found.value), headers]


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
