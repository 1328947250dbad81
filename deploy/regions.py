"""Which region of Google's is nearest to one of Neon's: each query pays the distance."""

from __future__ import annotations

from shared.database.url import DatabaseUrl

NEON = ".neon.tech"
NEAREST = {
    "aws-us-east-1": "us-east4",  # Northern Virginia, both
    "aws-us-east-2": "us-east5",  # Ohio, both
    "aws-us-west-2": "us-west1",  # Oregon, both
    "aws-eu-central-1": "europe-west3",  # Frankfurt, both
    "aws-eu-west-2": "europe-west2",  # London, both
    "aws-ap-southeast-1": "asia-southeast1",  # Singapore, both
    "aws-ap-southeast-2": "australia-southeast1",  # Sydney, both
    "aws-sa-east-1": "southamerica-east1",  # São Paulo, both
    "azure-eastus2": "us-east4",  # Virginia, both
    "azure-westus3": "us-west4",  # Arizona, and Nevada beside it
    "azure-gwc": "europe-west3",  # Frankfurt, both
}


def of_neon(url: DatabaseUrl) -> str | None:
    """Name Neon's region of a host such as `ep-x-pooler.us-east-2.aws.neon.tech`."""
    labels = url.host.removesuffix(NEON).split(".")
    if not url.host.endswith(NEON) or len(labels) < 3:
        return None
    return f"{labels[-1]}-{labels[-2]}"
