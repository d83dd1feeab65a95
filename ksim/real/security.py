"""What a configuration says of certificates and logins, ready for use by connections."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from ksim.consumer.config import KEYS, Config
from ksim.core.errors import ConfigError
from ksim.real.sasl import Credentials
from ksim.real.tls import Plain, Tls, Wrapping, reason_of


@dataclass(frozen=True, slots=True)
class Security:
    """How each connection begins; the same for all brokers."""

    context: ssl.SSLContext | None = None
    credentials: Credentials | None = None

    def wrapping(self, host: str, where: object) -> Wrapping:
        """TLS to this host if there is any."""
        return Plain() if self.context is None else Tls(self.context, host, where)


def security_of(config: Config) -> Security:
    """Read all files that are named. Raises ConfigError, which names the key and the file."""
    credentials = None
    if config.uses_sasl:
        mechanism, username = config.sasl_mechanism, config.sasl_plain_username
        password = config.sasl_plain_password
        assert mechanism is not None
        assert username is not None
        assert password is not None
        credentials = Credentials(mechanism, username, password)
    return Security(_context(config) if config.uses_tls else None, credentials)


def _context(config: Config) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = config.ssl_check_hostname
    cafile, certfile, crlfile = config.ssl_cafile, config.ssl_certfile, config.ssl_crlfile
    if cafile is None:
        context.load_default_certs()
    else:
        _load("ssl_cafile", config, lambda: context.load_verify_locations(cafile))
    if certfile is not None:
        # Without a password here OpenSSL would ask for one at the terminal.
        password = config.ssl_password or ""
        key = "ssl_certfile" if config.ssl_keyfile is None else "ssl_keyfile"
        keyfile = config.ssl_keyfile
        _load(key, config, lambda: context.load_cert_chain(certfile, keyfile, lambda: password))
    if crlfile is not None:
        _load("ssl_crlfile", config, lambda: context.load_verify_locations(crlfile))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    ciphers = config.ssl_ciphers
    if ciphers is not None:
        _load("ssl_ciphers", config, lambda: context.set_ciphers(ciphers))
    return context


def _load(name: str, config: Config, load: Callable[[], None]) -> None:
    shown = KEYS[name].shown(getattr(config, name))
    try:
        load()
    except ssl.SSLError as error:
        why = reason_of(error).replace("_", " ").lower() or "nothing in it can be used"
        raise ConfigError(f"{name} = {shown}: {why}") from None
    except OSError as error:
        raise ConfigError(f"{name} = {shown}: {error.strerror}") from None
