"""Certificates and logins of the broker that has them, made anew for each broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

USERS = {"PLAIN": "paula", "SCRAM-SHA-256": "simon", "SCRAM-SHA-512": "s=ue"}
PASSWORDS = {name: f"planted-secret-{name}" for name in USERS.values()}
LOGIN_AGAIN_MS = 3_000  # Kafka takes no second login within a second
# Listener to protocol. ELSEWHERE has a certificate for another host, MUTUAL wants one of clients,
# AGAIN wants a new login every few seconds.
LISTENERS = {
    "SASL_SSL": "SASL_SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "AGAIN": "SASL_SSL",
    "MUTUAL": "SSL",
    "ELSEWHERE": "SSL",
}
MODULES = "org.apache.kafka.common.security"
HOSTS = ("localhost", "127.0.0.1")


def secure_settings(folder: Path) -> dict[str, str]:
    """Make what a secure broker reads, and give its settings."""
    make_certificates(folder)
    settings = {
        "sasl.enabled.mechanisms": ",".join(USERS),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "listener.name.elsewhere.ssl.keystore.location": str(folder / "elsewhere.pem"),
        "listener.name.elsewhere.ssl.keystore.type": "PEM",
        "listener.name.mutual.ssl.client.auth": "required",
    }
    plain = "".join(f' user_{name}="{PASSWORDS[name]}"' for name in ("paula",))
    for listener in ("sasl_ssl", "sasl_plaintext", "again"):
        for mechanism in USERS:
            module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
            options = plain if mechanism == "PLAIN" else ""
            prefix = f"listener.name.{listener}.{mechanism.lower()}"
            settings[f"{prefix}.sasl.jaas.config"] = f"{MODULES}.{module} required{options};"
            if listener == "again":
                settings[f"{prefix}.connections.max.reauth.ms"] = str(LOGIN_AGAIN_MS)
    return settings


def format_options() -> list[str]:
    """What the storage is formatted with: the users of SCRAM."""
    found: list[str] = []
    for mechanism, name in USERS.items():
        if mechanism != "PLAIN":
            user = f"name={name},password={PASSWORDS[name]}"
            found += ["--add-scram", f"{mechanism}=[{user}]"]
    return found


def make_certificates(folder: Path) -> None:
    """ca.pem, other-ca.pem, and broker, elsewhere, client: certificate and key in one file.

    locked.pem is the client's with a password, nothing-revoked.pem and broker-revoked.pem lists.
    """
    import trustme

    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    other.cert_pem.write_to_path(str(folder / "other-ca.pem"))
    for name, hosts in (("broker", HOSTS), ("elsewhere", ("elsewhere.test",)), ("client", HOSTS)):
        issued = authority.issue_cert(*hosts)
        key = key_of(issued.private_key_pem.bytes())
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        (folder / f"{name}.pem").write_bytes(key + chain)
        revoked = [chain] if name == "broker" else []
        if name != "client":
            path = folder / f"{'broker' if revoked else 'nothing'}-revoked.pem"
            path.write_bytes(revocations(authority, revoked))
    (folder / "locked.pem").write_bytes(key_of(key, PASSWORDS["paula"]) + chain)


def revocations(authority: Any, revoked: list[bytes]) -> bytes:
    """The authority's list of these certificates."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    began = issuer.not_valid_before_utc
    made = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    made = made.last_update(began).next_update(issuer.not_valid_after_utc)
    for pem in revoked:
        serial = x509.load_pem_x509_certificate(pem).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(began)
        made = made.add_revoked_certificate(entry.build())
    key: Any = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def key_of(pem: bytes, password: str = "") -> bytes:
    """The same key in the one form that Kafka reads."""
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(pem, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode())
        if password
        else serialization.NoEncryption(),
    )


def settings_for(mechanism: str, folder: Path, **more: str) -> dict[str, str]:
    """A client's keys for one of the users."""
    name = USERS[mechanism]
    return {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(folder / "ca.pem"),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": name,
        "sasl_plain_password": PASSWORDS[name],
        **more,
    }
