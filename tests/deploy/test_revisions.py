"""How a deployment is taken back."""

from __future__ import annotations

from tests.support.deployments import WHERE, commands_of, problems_of, revision, set_revisions
from tests.support.gcloud import Gcloud


def test_a_rollback_serves_the_newest_older_revision_that_works(gcloud: Gcloud) -> None:
    found = [revision("a-1", 1), revision("a-2", 2), revision("a-3", 3, "False")]
    set_revisions(gcloud, "a-4", revision("a-5", 5, "False"), *found, revision("a-4", 4))
    shown = gcloud.run("rollback", **WHERE, DRY_RUN="1")
    assert gcloud.called("run services update-traffic") == []
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown.stdout
    ((_, words, flags),) = commands_of(done)
    assert words == ["ai-coder-auth"]
    assert flags["--to-revisions"] == "a-2=100"
    assert len(gcloud.called("run services update-traffic")) == 1
    assert [line.split("  ")[0::2] for line in done.stderr.splitlines()] == [
        ["a-5", "never worked"],
        ["a-4", "serves"],
        ["a-3", "never worked"],
        ["a-2", "will serve"],
        ["a-1"],
    ]


def test_a_rollback_can_name_the_revision_and_the_service(gcloud: Gcloud) -> None:
    set_revisions(gcloud, "a-3", *(revision(f"a-{n}", n) for n in (1, 2, 3)))
    service = "ai-coder-auth-admin"
    done = gcloud.run("rollback", **WHERE, REVISION="a-1", SERVICE=service)
    ((_, words, flags),) = commands_of(done)
    assert (words, flags["--to-revisions"]) == ([service], "a-1=100")
    done = gcloud.run("rollback", **WHERE, REVISION="a-9")
    assert done.returncode == 2
    assert "has no revision a-9; it has a-3, a-2, a-1." in done.stderr


def test_where_there_is_nothing_to_go_back_to_nothing_changes(gcloud: Gcloud) -> None:
    set_revisions(gcloud, "a-1", revision("a-1", 1), revision("a-2", 2, "False"))
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 1
    assert "No older revision worked" in done.stderr
    gcloud.say("run services describe", error="Cannot find service [ai-coder-auth]")
    done = gcloud.run("rollback", **WHERE)
    assert done.returncode == 1
    assert "The revisions of ai-coder-auth cannot be listed" in done.stderr
    assert gcloud.called("run services update-traffic") == []
    assert problems_of(gcloud.run("rollback", PROJECT="my-project")) == ["REGION is missing."]
