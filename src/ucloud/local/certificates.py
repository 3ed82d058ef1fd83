"""The cloud's own certificate authority: etcd and the agents' doors trust only what it signed.

Certificates carry no common name (with authentication on, etcd's JSON gateway refuses clients that have one); they
are known by the name "ucloud" and the addresses of their machine. Keys are EC P-256, mode 0600.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ucloud.errors import MissingPrerequisite
from ucloud.system import files

NAME = "ucloud"
AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 1825
_BACKDATE = datetime.timedelta(hours=1)  # machines whose clocks differ a little trust a new certificate at once


def ensure_authority(directory: Path) -> None:
    """Make ``ca.pem`` and ``ca.key`` in ``directory`` unless they are there.

    Raises MissingPrerequisite if one of the two is lost: a new authority would lock everybody out.
    """
    there = [(directory / name).exists() for name in ("ca.key", "ca.pem")]
    if all(there):
        return
    if there[1]:
        raise MissingPrerequisite(
            f"failed to use the authority in {directory}: ca.key is missing", hint="restore it from a backup"
        )
    files.ensure_directory(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, NAME)])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(directory / "ca.key", key)
    files.write_atomic(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def ensure_certificate(directory: Path, name: str, *, addresses: Sequence[str] = ("127.0.0.1", "::1")) -> None:
    """Make ``<name>.pem`` and ``<name>.key``, for servers and clients alike, unless both are there."""
    if all((directory / f"{name}.{ending}").exists() for ending in ("pem", "key")):
        return
    authority = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
    authority_key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), password=None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"failed to sign {name}: ca.key is not an EC key")
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName(NAME), x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(x509.Name([]), authority.subject, key, CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_key(directory / f"{name}.key", key)
    files.write_atomic(directory / f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    form = serialization.PrivateFormat.PKCS8
    files.write_atomic(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
