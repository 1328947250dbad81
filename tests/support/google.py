"""Google's part in signing in, and Firebase's: ID tokens, and their certificates over HTTPS."""

from __future__ import annotations

import json
import ssl
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from shared.credentials import id_tokens
from shared.credentials.id_tokens import Provider
from tests.support.certificates import Authority
from tests.support.emulator import ROOT
from tests.support.serving import serving

AUDIENCE = "https://api.example.com/api/migrate"
SERVICE_ACCOUNT = "importer@project.iam.gserviceaccount.com"
MAX_AGE = 3600

CLIENT_ID = "1234567890-0a1b2c3d4e5f.apps.googleusercontent.com"
PROJECT = "ai-coder-tests"
SUBJECT = "112233445566778899001"
"""A person's name at Google; Firebase knows it, too."""
SIGN_IN_SOURCE = f"{ROOT}/tests/support/google_functions.py"


class Key:
    """An RSA key with a name, and its certificate as Google publishes it. Thread-safe."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        # Made at once: two threads that make it when they need it sign with different keys.
        self._private = rsa.generate_private_key(65537, 2048)

    @cached_property
    def certificate(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.kid)])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._private, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def token(self, changes: dict[str, Any] | None = None, **header: Any) -> str:
        """Make a service account's ID token; a claim or header parameter that is None is absent."""
        return self.mint(claims_now() | (changes or {}), **header)

    def mint(self, claims: dict[str, Any], **header: Any) -> str:
        """Sign claims; one, or a header parameter, that is None is absent."""
        return self.raw_token(
            {"alg": "RS256", "kid": self.kid, "typ": "JWT"} | header,
            json.dumps({name: value for name, value in claims.items() if value is not None}),
        )

    def raw_token(self, header: dict[str, Any], claims: str) -> str:
        header = {name: value for name, value in header.items() if value is not None}
        return self.sign_segments(encode(json.dumps(header).encode()), encode(claims.encode()))

    def sign_segments(self, header: str, claims: str) -> str:
        signed = f"{header}.{claims}"
        return f"{signed}.{encode(self.sign(signed.encode()))}"


def claims_now() -> dict[str, Any]:
    """Give the claims of a token that was issued a minute ago."""
    now = int(time.time())
    return {
        "iss": "https://accounts.google.com",
        "aud": AUDIENCE,
        "azp": "109876543210987654321",
        "sub": "109876543210987654321",
        "email": SERVICE_ACCOUNT,
        "email_verified": True,
        "iat": now - 60,
        "exp": now + 3540,
    }


def google_claims(**changes: Any) -> dict[str, Any]:
    """Give what Google says of a person who signs in now, with changes; None makes absent."""
    now = int(time.time())
    return {
        "iss": "https://accounts.google.com",
        "aud": CLIENT_ID,
        "azp": CLIENT_ID,
        "sub": SUBJECT,
        "email": "Ada.Lovelace@gmail.com",
        "email_verified": True,
        "name": "Ada Lovelace",
        "iat": now - 60,
        "exp": now + 3540,
    } | changes


def firebase_claims(*, subject: str = SUBJECT, **changes: Any) -> dict[str, Any]:
    """Give what Firebase says of the same person; `subject` is Google's for them."""
    now = int(time.time())
    return {
        "iss": f"https://securetoken.google.com/{PROJECT}",
        "aud": PROJECT,
        "sub": "vXq3mFirebaseUid",
        "user_id": "vXq3mFirebaseUid",
        "email": "Ada.Lovelace@gmail.com",
        "email_verified": True,
        "name": "Ada Lovelace",
        "auth_time": now - 90,
        "iat": now - 60,
        "exp": now + 3540,
        "firebase": {
            "identities": {"google.com": [subject], "email": ["Ada.Lovelace@gmail.com"]},
            "sign_in_provider": "google.com",
        },
    } | changes


def encode(data: bytes) -> str:
    """Encode as base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class CertificateServer:
    """Serves the keys' certificates; what it answers can be changed, and it counts."""

    def __init__(self, authority: Authority, *keys: Key) -> None:
        self.authority = authority
        self.keys = list(keys)
        self.status = 200
        self.headers = {"Cache-Control": f"public, max-age={MAX_AGE}, must-revalidate"}
        self.body: bytes | None = None
        self.pause = 0.0
        self.before_answering: Callable[[], object] = lambda: None
        self.requests = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # http.server's name
                outer.requests += 1
                time.sleep(outer.pause)
                outer.before_answering()
                body = outer.body
                if body is None:
                    body = json.dumps({key.kid: key.certificate for key in outer.keys}).encode()
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *args: Any) -> None:
                """Say nothing: some tests hang up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("certificates", ("localhost",)))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self.url = f"https://localhost:{self.port}/certificates"

    @contextmanager
    def running(self) -> Iterator[CertificateServer]:
        with serving(self._server):
            yield self

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def certificate_server(folder: Path, *keys: Key) -> Iterator[CertificateServer]:
    """Run a server with an authority of its own."""
    with CertificateServer(Authority(folder), *keys).running() as server:
        yield server


class Providers:
    """Google and Firebase, each with a key and a certificate server of its own."""

    def __init__(self, google: CertificateServer, firebase: CertificateServer) -> None:
        self.google, self.firebase = google, firebase
        self.settings = {
            "GOOGLE_CLIENT_ID": CLIENT_ID,
            "FIREBASE_PROJECT_ID": PROJECT,
            "TEST_CERTIFICATES_URL": google.url,
            "TEST_FIREBASE_CERTIFICATES_URL": firebase.url,
            "SSL_CERT_FILE": str(google.authority.certificate),
        }
        """For an emulator that runs SIGN_IN_SOURCE."""

    def serve_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process ask these servers instead of Google's."""
        monkeypatch.setenv("SSL_CERT_FILE", self.settings["SSL_CERT_FILE"])
        provider = Provider(id_tokens.GOOGLE.issuers, self.google.url)
        monkeypatch.setattr(id_tokens, "GOOGLE", provider)
        monkeypatch.setattr(id_tokens, "FIREBASE_CERTIFICATES_URL", self.firebase.url)

    def google_token(self, **changes: Any) -> str:
        """Make Google's ID token; see `google_claims`."""
        return self.google.keys[0].mint(google_claims(**changes))

    def firebase_token(self, **changes: Any) -> str:
        """Make Firebase's ID token; see `firebase_claims`."""
        return self.firebase.keys[0].mint(firebase_claims(**changes))


@contextmanager
def sign_in_providers(folder: Path) -> Iterator[Providers]:
    """Run both providers under one authority."""
    authority = Authority(folder)
    with (
        CertificateServer(authority, Key("google-1")).running() as google,
        CertificateServer(authority, Key("firebase-1")).running() as firebase,
    ):
        yield Providers(google, firebase)
