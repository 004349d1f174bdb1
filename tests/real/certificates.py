"""Certificates for servers under test."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from twisted.internet.ssl import CertificateOptions


def own_certificate() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """
    @return: a key and a certificate for 127.0.0.1 and localhost, signed by itself,
        valid for a day.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    return key, certificate


def write_certificate(directory: str) -> tuple[str, str]:
    """
    Make a certificate as L{own_certificate}.

    @return: the paths of the certificate and of its key, in PEM form.
    """
    key, certificate = own_certificate()
    paths = Path(directory, "certificate.pem"), Path(directory, "key.pem")
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return str(paths[0]), str(paths[1])


def authority_for(directory: str, *names: str) -> tuple[str, CertificateOptions]:
    """
    Make an authority and a server with a certificate of its, valid for a day.

    @param directory: for the file; made here.
    @param names: DNS names of the server.
    @return: the path of the authority's certificate, and the server's side of TLS.
    """
    now = datetime.datetime.now(datetime.UTC)

    def builder(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = (
        builder("test authority", authority_key)
        .issuer_name(
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(authority_key, SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = (
        builder(names[0], server_key)
        .issuer_name(authority.subject)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
            critical=False,
        )
        .sign(authority_key, SHA256())
    )
    path = Path(directory)
    path.mkdir()
    file = path / "authority.pem"
    file.write_bytes(authority.public_bytes(Encoding.PEM))
    # Twisted's types ask for pyOpenSSL's objects, which pyOpenSSL has deprecated.
    options = CertificateOptions(
        privateKey=server_key,  # type: ignore[arg-type]
        certificate=server,  # type: ignore[arg-type]
    )
    return str(file), options
