"""The kinds of value that a configuration key may have, and what is known of each key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Protocol

from ksim.core.errors import ConfigError
from ksim.texts import DEFAULT_PORT, nearest, parse_address, parse_duration, shown

HIDDEN: Final = "***"
MOST: Final = 2**31 - 1  # what Kafka's requests can say
LONGEST_TEXT: Final = 32_767  # bytes, likewise
METADATA: Final = "key"


class Kind(Protocol):
    """One kind of value. Both methods raise ValueError with what would be valid."""

    @property
    def name(self) -> str:
        """The type, for people."""

    @property
    def valid(self) -> str:
        """The unit and range, or the choices, for people; empty if there is nothing to say."""

    def check(self, found: Any) -> Any:
        """The value as the configuration keeps it."""

    def read(self, text: str) -> Any:
        """The value of a text from a file, the environment or the command line."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is not empty."""

    name: str = "text"
    valid: str = "not empty"

    def check(self, found: Any) -> str:
        if not isinstance(found, str):
            raise ValueError("a text is needed")
        if not found:
            raise ValueError("must not be empty")
        if len(found.encode()) > LONGEST_TEXT:
            raise ValueError(f"at most {LONGEST_TEXT} bytes")
        return found

    def read(self, text: str) -> str:
        return self.check(text)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression, kept as text."""

    name: str = "pattern"
    valid: str = "a regular expression, searched anywhere in the name"

    def check(self, found: Any) -> str:
        try:
            re.compile(Text().check(found))
        except (re.error, OverflowError) as error:
            raise ValueError(f"no regular expression: {error}") from None
        except RecursionError:
            raise ValueError("no regular expression: nested too deeply") from None
        return str(found)

    def read(self, text: str) -> str:
        return self.check(text)


@dataclass(frozen=True, slots=True)
class Texts:
    """Several texts; in files separated by commas."""

    name: str = "texts"
    valid: str = "in files a list, or separated by commas"

    def check(self, found: Any) -> tuple[str, ...]:
        if not isinstance(found, tuple | list):
            raise ValueError("several texts are needed, such as ('a', 'b')")
        return tuple(Text().check(each) for each in found)

    def read(self, text: str) -> tuple[str, ...]:
        return self.check([each.strip() for each in text.split(",")] if text.strip() else [])


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where brokers listen; in files separated by commas."""

    name: str = "texts"
    valid: str = "each host:port; in files a list, or separated by commas"

    def check(self, found: Any) -> tuple[str, ...]:
        texts = Texts().check(found)
        wrong = next((each for each in texts if parse_address(each, DEFAULT_PORT) is None), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r} is not host:port, such as localhost:9092")
        return texts

    def read(self, text: str) -> tuple[str, ...]:
        return self.check(Texts().read(text))


@dataclass(frozen=True, slots=True)
class Octets:
    """Bytes; in files a text, as UTF-8."""

    name: str = "bytes"
    valid: str = "in files a text, as UTF-8"

    def check(self, found: Any) -> bytes:
        if not isinstance(found, bytes):
            raise ValueError("bytes are needed")
        return found

    def read(self, text: str) -> bytes:
        return text.encode()


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number of this unit."""

    least: int = 0
    unit: str = ""
    most: int = MOST

    @property
    def name(self) -> str:
        return "duration" if self.unit == "ms" else "number"

    @property
    def valid(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.least} to {self.most}{unit}"

    def check(self, found: Any) -> int:
        if isinstance(found, bool) or not isinstance(found, int):
            raise ValueError(f"a whole number is needed, {self.valid}")
        if not self.least <= found <= self.most:
            raise ValueError(self.valid)
        return found

    def read(self, text: str) -> int:
        text = text.strip()
        ms = parse_duration(text) if self.unit == "ms" else None
        if ms is None and not (text.isascii() and text.removeprefix("-").isdigit()):
            hint = ", or a duration such as 1500ms, 30s, 5m" if self.unit == "ms" else ""
            raise ValueError(f"a whole number is needed, {self.valid}{hint}")
        return self.check(int(text) if ms is None else ms)


TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false; `more` are further words for them in files."""

    more: Mapping[str, bool] = field(default_factory=dict)
    name: str = "flag"
    valid: str = "true or false"

    def check(self, found: Any) -> bool:
        if not isinstance(found, bool):
            raise ValueError("True or False")
        return found

    def read(self, text: str) -> bool:
        words = {**TRUTHS, **self.more}
        found = words.get(text.strip().lower())
        if found is None:
            raise ValueError(" or ".join(filter(None, ("true", "false", *self.more))))
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these texts; `aliases` are other spellings, in files alone."""

    choices: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    enum: type[StrEnum] | None = None
    name: str = "choice"

    @property
    def valid(self) -> str:
        return ", ".join(self.choices)

    def check(self, found: Any) -> str:
        if not isinstance(found, str) or found not in self.choices:
            raise ValueError(self.valid)
        return found if self.enum is None else self.enum(found)

    def read(self, text: str) -> str:
        text = text.strip()
        lower = {choice.lower(): choice for choice in self.choices}
        return self.check(lower.get(text.lower()) or self.aliases.get(text, text))


def choice_of(enum: type[StrEnum], aliases: Mapping[str, str] | None = None) -> Choice:
    """One of an enum's values."""
    return Choice(tuple(each.value for each in enum), aliases or {}, enum)


@dataclass(frozen=True, slots=True)
class Several:
    """One choice or several, each at most once; in files separated by commas."""

    each: Choice
    name: str = "choices"

    @property
    def valid(self) -> str:
        return f"one or several of {self.each.valid}"

    def check(self, found: Any) -> str | tuple[str, ...]:
        if not isinstance(found, tuple | list):
            return self.each.check(found)
        if not found or len(set(map(str, found))) < len(found):
            raise ValueError(f"{self.each.valid}, each at most once")
        return tuple(self.each.check(one) for one in found)

    def read(self, text: str) -> str | tuple[str, ...]:
        if "," not in text:
            return self.each.read(text)
        return self.check([self.each.read(one) for one in text.split(",")])


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of one key; `java` and `librdkafka` are its names in those clients."""

    name: str
    kind: Kind
    default: Any
    says: str
    java: str
    librdkafka: tuple[str, ...]
    secret: bool

    def check(self, found: Any) -> Any:
        """The value as it is kept. Raises ConfigError."""
        if found is None and self.default is None:
            return None
        try:
            return self.kind.check(found)
        except ValueError as error:
            raise ConfigError(f"{self.name} = {self.shown(found)}: {error}") from None

    def read(self, found: Any, spelt: str) -> Any:
        """The same of what a mapping says, where a text may stand for a value of any kind."""
        if found is None and self.default is None:
            return None
        try:
            if isinstance(found, str):
                return self.kind.read(found)
            if isinstance(found, list) and isinstance(self.kind, Several):
                return self.kind.check([self.kind.each.read(str(one)) for one in found])
            return self.kind.check(found)
        except ValueError as error:
            name = self.name if spelt == self.name else f"{spelt} ({self.name})"
            raise ConfigError(f"{name} = {self.shown(found)}: {error}") from None

    def shown(self, found: Any) -> str:
        """The value in an error line, unless it is a secret."""
        return HIDDEN if self.secret else shown(found)


def key(
    kind: Kind,
    default: Any,
    says: str,
    *,
    java: str = "",
    librdkafka: str | tuple[str, ...] | None = None,
    secret: bool = False,
) -> Any:
    """A field of the configuration; librdkafka's name is Java's unless it is given."""
    names = (java,) if librdkafka is None else librdkafka
    names = (names,) if isinstance(names, str) else names
    found = Key("", kind, default, says, java, tuple(filter(None, names)), secret)
    return field(default=default, repr=not secret, metadata={METADATA: found})


def keys_of(config: Any) -> dict[str, Key]:
    """All keys of a configuration class, by name."""
    found: dict[str, Key] = {}
    for each in fields(config):
        told = each.metadata[METADATA]
        found[each.name] = Key(each.name, *(getattr(told, part.name) for part in fields(Key)[1:]))
    return found


def plain(name: str) -> str:
    """A key in ksim's way to write it, whoever's it is."""
    return name.strip().replace(".", "_").replace("-", "_").lower()


def unknown(name: str, found: Any, valid: list[str]) -> ConfigError:
    """The error for a key that is not there.

    What is not nearly a key of ours may hold anything, a login of another product for one: its
    value is shown only where it can be nothing but a slip in a key that is no secret.
    """
    near = difflib.get_close_matches(plain(name), valid, 1, SLIP)
    told = HIDDEN if not near or _may_be_secret(name + near[0]) else shown(found)
    return ConfigError(f"{name} = {told}: unknown configuration key; {nearest(plain(name), valid)}")


SLIP: Final = 0.85  # how like two names are that mean the same, as difflib has it
SECRET_WORDS: Final = (
    "ssl", "sasl", "pass", "pw", "secret", "token", "cred", "jaas", "key", "auth", "login", "bearer"
)  # fmt: skip


def _may_be_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_WORDS)
