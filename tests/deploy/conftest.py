"""The gcloud that deployments are made with here."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import services
from tests.support.deployments import VALUES, lose_secret, set_secret
from tests.support.gcloud import Gcloud


@pytest.fixture
def gcloud(tmp_path: Path) -> Gcloud:
    """One that is logged in to a project with everything that a deployment needs."""
    made = Gcloud(tmp_path)
    made.say("auth list", "ada@example.com\n")
    made.say("config get project", "configured-project\n")
    for name, value in VALUES.items():
        set_secret(made, name, value)
    for name in services.OPTIONAL_SECRETS:
        lose_secret(made, name)
    return made
