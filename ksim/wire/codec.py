"""The door of this room: values of the core to kafka-python's messages, and back."""

from __future__ import annotations

from ksim.wire.errors import WireError
from ksim.wire.requests import encode_request
from ksim.wire.responses import decode_response

__all__ = ["WireError", "decode_response", "encode_request"]
