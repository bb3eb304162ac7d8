"""A certificate authority for tests: real certificates, made when they are needed."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def general_name(name):
    if name[0].isdigit():
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


class Authority:
    """A certificate authority that writes what it issues into a folder."""

    def __init__(self, folder, name):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self.signed(self.name, self.key, NOW + 10 * DAY, None)
        self.path = folder / f"{name}.ca.pem"
        self.path.write_bytes(certificate.public_bytes(PEM))

    def signed(self, subject, key, until, names):
        identifier = x509.SubjectKeyIdentifier.from_public_key
        issuing = names is None
        usage = x509.KeyUsage(
            True, False, False, False, False, issuing, issuing, False, False
        )
        alternatives = map(general_name, names or ["issuing"])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 5 * DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=issuing, path_length=None), True)
            .add_extension(x509.SubjectAlternativeName(alternatives), False)
            .add_extension(usage, True)
            .add_extension(identifier(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(
                    self.key.public_key()
                ),
                False,
            )
        )
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name, names=("127.0.0.1",), until=NOW + DAY, password=None):
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self.folder / f"{name}.pem"
        certificate.write_bytes(
            self.signed(subject, key, until, names).public_bytes(PEM)
        )
        locked = serialization.NoEncryption()
        if password:
            locked = serialization.BestAvailableEncryption(password)
        form = serialization.PrivateFormat.PKCS8
        secret = self.folder / f"{name}.key"
        secret.write_bytes(key.private_bytes(PEM, form, locked))
        return certificate, secret

    def combined(self, name, **how):
        """One file with both, as servers and requests' `cert` take it."""
        certificate, key = self.issue(name, **how)
        path = self.folder / f"{name}.both.pem"
        path.write_bytes(certificate.read_bytes() + key.read_bytes())
        return path
