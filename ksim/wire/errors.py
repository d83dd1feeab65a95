"""What a broker's answer can do to us on the wire."""

from __future__ import annotations


class WireError(Exception):
    """A broker answered what was not asked, or what cannot be read; the connection is useless."""
