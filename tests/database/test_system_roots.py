"""Whose certificates are trusted where no file is named, and what is read for it."""

from __future__ import annotations

import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shared.database.connecting import connect, make_tls_context
from shared.database.url import DatabaseUrl
from shared.errors import StoreRefused
from shared.happy_eyeballs import Preferences
from tests.support.certificates import Authority
from tests.support.postgres import Server


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres: Server) -> Path:
    """A machine's own file and folder of roots, with the server's authority in both."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    names = ssl.get_default_verify_paths()
    file, folder = tmp_path / "cert.pem", tmp_path / "certs"
    folder.mkdir()
    file.write_bytes(postgres.authority.certificate.read_bytes())
    _add(folder, postgres.authority.certificate)
    paths = names._replace(cafile=str(file), capath=str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    return tmp_path


def _add(folder: Path, certificate: Path) -> None:
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (folder / f"{done.stdout.strip()}.0").write_bytes(certificate.read_bytes())


def _url(server: Server, database: str) -> DatabaseUrl:
    return replace(DatabaseUrl.parse(server.url(database)), root_certificates=None)


def _ask(url: DatabaseUrl, context: ssl.SSLContext) -> None:
    connection = connect(url, context, time.monotonic() + 30, Preferences())
    assert connection.execute("SELECT 1") == [[1]]
    connection.close()


@pytest.mark.usefixtures("system")
def test_of_a_folder_that_has_all_roots_only_the_one_that_is_needed_is_read(
    postgres: Server, database: str
) -> None:
    url = _url(postgres, database)
    context = make_tls_context(url.root_certificates)
    assert context.cert_store_stats()["x509"] == 0
    _ask(url, context)
    assert context.cert_store_stats()["x509"] == 1


def test_a_server_whose_root_is_not_in_the_folder_is_refused(
    system: Path, postgres: Server, database: str
) -> None:
    for path in (system / "certs").iterdir():
        path.unlink()
    (system / "other").mkdir()
    _add(system / "certs", Authority(system / "other").certificate)
    url = _url(postgres, database)
    context = make_tls_context(url.root_certificates)
    with pytest.raises(StoreRefused, match="not valid for this host"):
        _ask(url, context)


@pytest.mark.parametrize("lack", ["a root", "the folder", "the file"])
def test_where_the_folder_may_lack_what_the_file_has_openssl_trusts_as_usual(
    system: Path, lack: str, postgres: Server, database: str
) -> None:
    if lack == "a root":
        with (system / "cert.pem").open("ab") as file:
            file.write(postgres.authority.certificate.read_bytes())
    else:
        (system / {"the folder": "certs", "the file": "cert.pem"}[lack]).rename(system / "gone")
    usual = ssl.create_default_context().cert_store_stats()
    assert make_tls_context(_url(postgres, database).root_certificates).cert_store_stats() == usual
    assert usual["x509"] > 0


@pytest.mark.usefixtures("system")
def test_a_file_that_the_environment_names_is_what_is_trusted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, postgres: Server, database: str
) -> None:
    url = _url(postgres, database)
    monkeypatch.setenv("SSL_CERT_FILE", str(postgres.authority.certificate))
    context = make_tls_context(url.root_certificates)
    assert context.cert_store_stats()["x509"] == 1
    _ask(url, context)
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority(tmp_path / "other").certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "other"))
    context = make_tls_context(url.root_certificates)
    with pytest.raises(StoreRefused, match="not valid for this host"):
        _ask(url, context)
