"""Kafka's error numbers by name, and the exceptions that ksim raises for misuse."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class KafkaError(IntEnum):
    """Error codes as on the wire (Kafka `Errors.java`); only those that ksim speaks of."""

    UNKNOWN_SERVER_ERROR = -1
    NONE = 0
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_TOPIC_OR_PARTITION = 3
    LEADER_NOT_AVAILABLE = 5
    NOT_LEADER_OR_FOLLOWER = 6
    REQUEST_TIMED_OUT = 7
    REPLICA_NOT_AVAILABLE = 9
    MESSAGE_TOO_LARGE = 10
    OFFSET_METADATA_TOO_LARGE = 12
    COORDINATOR_LOAD_IN_PROGRESS = 14
    COORDINATOR_NOT_AVAILABLE = 15
    NOT_COORDINATOR = 16
    INVALID_TOPIC = 17
    INVALID_REQUIRED_ACKS = 21
    ILLEGAL_GENERATION = 22
    INCONSISTENT_GROUP_PROTOCOL = 23
    INVALID_GROUP_ID = 24
    UNKNOWN_MEMBER_ID = 25
    INVALID_SESSION_TIMEOUT = 26
    REBALANCE_IN_PROGRESS = 27
    INVALID_COMMIT_OFFSET_SIZE = 28
    TOPIC_AUTHORIZATION_FAILED = 29
    GROUP_AUTHORIZATION_FAILED = 30
    UNSUPPORTED_VERSION = 35
    TOPIC_ALREADY_EXISTS = 36
    INVALID_PARTITIONS = 37
    INVALID_REPLICATION_FACTOR = 38
    INVALID_REPLICA_ASSIGNMENT = 39
    INVALID_CONFIG = 40
    INVALID_REQUEST = 42
    POLICY_VIOLATION = 44
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    KAFKA_STORAGE_ERROR = 56
    NON_EMPTY_GROUP = 68
    GROUP_ID_NOT_FOUND = 69
    FETCH_SESSION_ID_NOT_FOUND = 70
    FENCED_LEADER_EPOCH = 74
    UNKNOWN_LEADER_EPOCH = 75
    UNSUPPORTED_COMPRESSION_TYPE = 76
    MEMBER_ID_REQUIRED = 79
    GROUP_MAX_SIZE_REACHED = 81
    FENCED_INSTANCE_ID = 82
    GROUP_SUBSCRIBED_TO_TOPIC = 86
    INVALID_RECORD = 87
    UNSTABLE_OFFSET_COMMIT = 88


def error_name(error_code: int) -> str:
    """Kafka's name of a code, or `ERROR_<n>` for one that this table does not hold."""
    try:
        return KafkaError(error_code).name
    except ValueError:
        return f"ERROR_{error_code}"


COORDINATOR_MOVED: Final = (
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)


class KsimError(Exception):
    """Base of what ksim raises on purpose. The message shows the value and the valid choices."""


class ConfigError(KsimError):
    """A configuration or argument is not valid; the caller mends it."""


class MisuseError(KsimError):
    """A method was called where it has no meaning, such as the wrong one for the mode."""


class ClientInUseError(MisuseError):
    """A client serves one consumer at a time; close that one first."""


class RefusedError(KsimError):
    """A broker refused something; `error_code` is Kafka's. Place and `detail` where there are any.

    `topic` is "", `partition` and `offset` are -1 where it is not about one.
    """

    def __init__(
        self,
        error_code: int,
        topic: str = "",
        partition: int = -1,
        offset: int = -1,
        detail: str = "",
    ) -> None:
        text = f"{error_name(error_code)} ({error_code})"
        super().__init__(f"{text}: {detail}" if detail else text)
        self.error_code = error_code
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.detail = detail


class UnreadableBatchError(RefusedError):
    """What stands at this offset is damaged or in a codec that is not there; nothing skips it."""


class NoBrokerError(KsimError):
    """No Kafka broker answered within `bootstrap_timeout_ms`."""


class AuthenticationError(KsimError):
    """A broker and this client do not believe each other: a login or a certificate is refused."""


class GroupFatalError(KsimError):
    """The group refused this member in a way that only its owner can mend."""

    def __init__(self, error_code: int, context: str) -> None:
        super().__init__(f"{context}: {error_name(error_code)} ({error_code})")
        self.error_code = error_code
        self.context = context


class CommitFailedError(KsimError):
    """The group did not take a commit; what was marked will be handled again by somebody."""

    def __init__(self, error_code: int) -> None:
        super().__init__(f"commit refused: {error_name(error_code)} ({error_code})")
        self.error_code = error_code


class DamagedRecordingError(KsimError):
    """A recording has a line that cannot be trusted; the message names the line."""


class UnsupportedRecordingError(DamagedRecordingError):
    """A recording is whole, as far as it can be told, but this release cannot read or replay it."""


class BrokenInvariantError(AssertionError):
    """A bug of ksim itself."""
