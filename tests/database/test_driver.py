"""What of pg8000 and scramp is loaded, and that what stands in for the rest says the same."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import asn1crypto.x509
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.database.driver import Certificate
from tests.support.emulator import ROOT, environment
from tests.support.postgres import Server

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
PSS = {"rsa_padding": padding.PSS(padding.MGF1(hashes.SHA384()), 48)}

SIGNATURES: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "RSA with SHA-256": (RSA, hashes.SHA256(), {}, "sha256"),
    "RSA with SHA-384": (RSA, hashes.SHA384(), {}, "sha384"),
    "RSA with SHA-512": (RSA, hashes.SHA512(), {}, "sha512"),
    "RSA with SHA-224": (RSA, hashes.SHA224(), {}, "sha224"),
    "RSA-PSS with SHA-384": (RSA, hashes.SHA384(), PSS, "sha384"),
    "ECDSA with SHA-256": (P256, hashes.SHA256(), {}, "sha256"),
    "ECDSA with SHA-384": (P256, hashes.SHA384(), {}, "sha384"),
    "ECDSA with SHA-512": (P256, hashes.SHA512(), {}, "sha512"),
    "ECDSA with SHA-224": (P256, hashes.SHA224(), {}, "sha224"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate(), None, {}, "sha512"),
}


@pytest.mark.parametrize("names", [1, 3000])
@pytest.mark.parametrize("kind", SIGNATURES)
def test_the_hash_of_a_certificates_signature_is_what_a_whole_parser_finds(
    kind: str, names: int
) -> None:
    key, algorithm, options, expected = SIGNATURES[kind]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db.example.com")])
    hosts = [x509.DNSName(f"db{number}.example.com") for number in range(names)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(key, algorithm, **options)
    )
    der = certificate.public_bytes(Encoding.DER)
    found = Certificate.load(der, strict=True).hash_algo
    assert found == expected == asn1crypto.x509.Certificate.load(der).hash_algo
    assert found in hashlib.algorithms_available


FIRST_CONNECTION = """
import sys, time
from shared.database.connecting import connect, make_tls_context
from shared.happy_eyeballs import Preferences
from shared.database.url import DatabaseUrl
url = DatabaseUrl.parse(sys.argv[1])
context = make_tls_context(url.root_certificates)
connection = connect(url, context, time.monotonic() + 30, Preferences())
print(connection.auth.mechanism_name, connection.execute("SELECT now() IS NOT NULL"))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"asn1crypto", "dateutil"}))
"""


def test_a_connection_with_channel_binding_loads_no_parsers_of_certificates_and_dates(
    postgres: Server, database: str
) -> None:
    url = postgres.url(database, channel_binding="require")
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CONNECTION, url],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["SCRAM-SHA-256-PLUS [[True]]", ""]
