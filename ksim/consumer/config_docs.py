"""`docs/configuration.md`, made from the table of keys: `python -m ksim.consumer.config_docs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from ksim.consumer.config import KEYS
from ksim.consumer.config_kinds import Key, Whole
from ksim.consumer.config_names import REFUSED
from ksim.texts import duration_text

BEGIN: Final = """# Configuration

This file is made from the table of keys (`python -m ksim.consumer.config_docs`); a test compares.

`Config(...)` takes the names of the first column as keywords, `Config.from_mapping` and
`Config.from_file` (.toml and .properties) take Java's and librdkafka's names as well, with dots or
underscores. A wrong value or an unknown key is a `ConfigError` that shows the key, the value, what
is valid and the nearest name. The value of an unknown key is shown where that is nearly the name of
a key that is no secret, and `***` otherwise: it may be a login of another product.

`ksim consume` takes a value from the first of these that has it:

1. its own flag (`-b`, `-g`, `-t`, `--from`, `--assignor`)
2. `-X KEY=VALUE`
3. the environment, `KSIM_CONFIG_<KEY>` (`KSIM_CONFIG_SESSION_TIMEOUT_MS=10s`)
4. the file of `--config`
5. the default

Only the command line reads the environment. Times are whole milliseconds; in files, the environment
and on the command line also texts such as `1500ms`, `30s`, `5m`. In TOML, `session.timeout.ms = 1`
and `"session.timeout.ms" = 1` are the same.

## Keys

"""
SECURITY: Final = """
## Security

- `security_protocol = "SSL"`: TLS 1.2 at least; certificates are always verified, against
  `ssl_cafile` or the operating system's authorities, and `ssl_check_hostname` compares the name.
- `SASL_SSL`: TLS, then a login by `sasl_mechanism` with `sasl_plain_username` and
  `sasl_plain_password`. `sasl.jaas.config` is read where it holds a PlainLoginModule or a
  ScramLoginModule with username and password and nothing else.
- `ssl.truststore.location` and `ssl.keystore.location` are read where their type is PEM.
- Secrets (`sasl_plain_password`, `ssl_password`) are shown nowhere: not in `repr`, errors, logs or
  recordings. Arguments of a process are seen by all users of its machine, so give them in the
  environment or in a file, not with `-X`.
- A login that is refused, at the start or later, raises `AuthenticationError`; `ksim consume` then
  ends with exit code 77. It is not tried again.

## Keys of other clients that are refused

Each is an error with this hint, because to take it in silence would promise what does not happen.

"""


def text() -> str:
    """The whole file."""
    header = ("Key", "Type", "Default", "Valid", "Meaning", "Java", "librdkafka")
    hints = [(_code(name), hint) for name, hint in sorted(REFUSED.items())]
    rows = [_row(known) for known in KEYS.values()]
    return BEGIN + _table(header, rows) + SECURITY + _table(("Key", "Hint"), hints)


def _row(known: Key) -> tuple[str, ...]:
    java, others = known.java, ", ".join(map(_code, known.librdkafka))
    return (
        _code(known.name),
        known.kind.name,
        _default(known),
        known.kind.valid,
        known.says,
        _code(java) if java else "",
        others,
    )


def _default(known: Key) -> str:
    found: Any = known.default
    if found is None or found in ("", ()):
        return "none"
    if isinstance(known.kind, Whole):
        return f"{found} ({duration_text(found)})" if known.kind.unit == "ms" else str(found)
    return _code(str(found).lower() if isinstance(found, bool) else str(found))


def _code(name: str) -> str:
    return f"`{name}`"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(text())
