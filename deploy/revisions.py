"""The revisions of a service, and the one to roll back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.errors import Failed
from deploy.gcloud import Gcloud, Refused
from deploy.services import Place


@dataclass(frozen=True)
class Revision:
    """One deployment of a service, kept by Cloud Run."""

    name: str
    created: str
    is_ready: bool
    serves: bool


def listed(gcloud: Gcloud, name: str, place: Place) -> list[Revision]:
    """Give a service's revisions, newest first. Raises Failed."""
    where = (f"--project={place.project}", f"--region={place.region}")
    try:
        service = gcloud.ask_json("run", "services", "describe", name, *where)
        found = gcloud.ask_json("run", "revisions", "list", f"--service={name}", *where)
    except Refused as error:
        raise Failed(f"The revisions of {name} cannot be listed: {error}") from error
    serving = {
        target.get("revisionName")
        for target in service["status"].get("traffic", [])
        if target.get("percent")
    }
    revisions = [
        Revision(
            name=one["metadata"]["name"],
            created=one["metadata"]["creationTimestamp"],
            is_ready=_is_ready(one),
            serves=one["metadata"]["name"] in serving,
        )
        for one in found
    ]
    return sorted(revisions, key=lambda revision: revision.created, reverse=True)


def previous(revisions: list[Revision]) -> Revision:
    """Give the newest ready revision older than those that serve. Raises Failed."""
    serving = [number for number, revision in enumerate(revisions) if revision.serves]
    older = revisions[max(serving) + 1 :] if serving else []
    for revision in older:
        if revision.is_ready:
            return revision
    raise Failed("No older revision worked, so there is none to roll back to.")


def _is_ready(revision: dict[str, Any]) -> bool:
    conditions = revision.get("status", {}).get("conditions", [])
    return all(one.get("status") != "False" for one in conditions if one["type"] == "Ready")
