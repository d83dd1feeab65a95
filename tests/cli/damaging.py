"""`ksim` whose served logs damage what says so: a batch that holds `DAMAGED` gets one wrong bit."""

from __future__ import annotations

from ksim.broker.batches import Appended, Batch, BatchLog
from ksim.cli.main import main

DAMAGED = b"damaged"
_append = BatchLog.append


def _damaging(log: BatchLog, batch: Batch, leader_epoch: int) -> Appended:
    if DAMAGED in batch.data:
        data = batch.data[:-1] + bytes([batch.data[-1] ^ 1])
        batch = batch._replace(data=data)
    return _append(log, batch, leader_epoch)


if __name__ == "__main__":
    BatchLog.append = _damaging  # type: ignore[method-assign]
    main()
