"""What tests of mail share."""

from __future__ import annotations

import pytest

from tests.support.mail_servers import Certificates


@pytest.fixture(scope="session")
def mail_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Those of all mail servers."""
    return Certificates(tmp_path_factory.mktemp("mail"))


@pytest.fixture
def certificates(mail_certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:
    """Certificates that this process trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", mail_certificates.roots)
    return mail_certificates
