"""Google's certificates, without which nobody can sign in with Google."""

from __future__ import annotations

from collections.abc import Iterator

from shared import https
from shared.credentials import id_tokens
from shared.credentials.certificates import FETCH_SECONDS
from shared.credentials.settings import CredentialSettings
from shared.doctor.subject import Findings, Subject, ok, problem


def look_at_google(subject: Subject) -> Findings:
    """Fetch what verifies ID tokens, as the service does."""
    if subject.settings is None:
        return
    for url in _urls(subject.settings.credentials):
        try:
            https.send(url, headers={"Accept": "application/json"}, timeout=FETCH_SECONDS)
        except https.FAILURES as error:
            yield problem(
                f"The certificates for sign-in with Google cannot be fetched from {url}: "
                f"{str(error).rstrip('.') or type(error).__name__}.",
                "Let this machine reach that host by HTTPS, directly or through HTTPS_PROXY; until "
                "then sign-in with Google is 503.",
            )
        else:
            yield ok(f"The certificates at {url} can be fetched.")


def _urls(settings: CredentialSettings) -> Iterator[str]:
    if settings.google_client_ids:
        yield id_tokens.GOOGLE.certificates_url
    if settings.firebase_project_id is not None:
        yield id_tokens.firebase(settings.firebase_project_id).certificates_url
