"""`python -m deploy`: what is done about a deployment, on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from deploy import checks, commands, revisions, services
from deploy import smoke as smoking
from deploy.checks import Findings
from deploy.errors import Failed, NotReady
from deploy.gcloud import Gcloud, NotFound, Refused
from deploy.services import Place
from deploy.words import MEMORY, PROJECT, REGION, REVISION, SERVICE

dry_run_option = click.option(
    "--dry-run", is_flag=True, envvar="DRY_RUN", help="Print the commands, and change nothing."
)
project_option = click.option(
    "--project", type=PROJECT, envvar="PROJECT", default="", help="gcloud's if absent."
)
region_option = click.option(
    "--region", type=REGION, envvar="REGION", default="", help="Such as us-east5."
)
url_option = click.option("--url", envvar="URL", help="The service, as its users reach it.")


@click.group(
    epilog="Exit codes: 0 done; 1 it failed; 2 nothing was tried, because something is missing or "
    "wrong; 130 interrupted."
)
def deploy() -> None:
    """Bring the functions to Google Cloud Run; docs/DEPLOY.md tells how.

    Each option is an environment variable, too: --dry-run is DRY_RUN=1.
    """


def _size_options(command: Callable[..., None]) -> Callable[..., None]:
    default = Place(project="", region="")
    for name in ("cpu", "memory", "concurrency", "min_instances", "max_instances"):
        value: Any = getattr(default, name)
        option = f"--{name.replace('_', '-')}"
        kind = MEMORY if name == "memory" else click.IntRange(min=0)
        command = click.option(
            option, type=kind, envvar=name.upper(), default=value, show_default=True
        )(command)
    return command


@deploy.command()
@click.option("--function", type=click.Choice(services.FUNCTIONS), envvar="FUNCTION")
@click.option(
    "--service", type=SERVICE, envvar="SERVICE", help="Another name for the service of that one."
)
@click.option(
    "--front", type=click.Choice(list(services.FRONTS)), envvar="FRONT", default="run.app"
)
@url_option
@project_option
@region_option
@_size_options
@dry_run_option
def apply(
    function: str | None,
    service: str | None,
    url: str | None,
    project: str,
    dry_run: bool,
    **options: Any,
) -> None:
    """Check everything, deploy the public and the private service, or one function, and try it."""
    if service is not None and function is None:
        raise NotReady("SERVICE names one service: say which FUNCTION it is for.")
    if url is not None:
        smoking.check_url(url)
    gcloud, findings = Gcloud(dry_run=dry_run), Findings()
    project = checks.find_project(gcloud, project, findings)
    place = Place(project=project, **options)
    deployed = services.chosen(function, service)
    checks.check(gcloud, place, deployed, os.environ, findings)
    _tell(findings)
    tried = None
    for one in deployed:
        settings = services.settings(one, place, os.environ)
        versions = {
            name: findings.versions[name] for name in one.secrets if name in findings.versions
        }
        gcloud.do(commands.deploy(one, place, settings, versions))
        gcloud.do(commands.serve_latest(one.name, place))
        if one.public and one.entry_point == "api":
            tried = one.name
    if tried and not dry_run:
        _try(gcloud, place, tried, url)


def _tell(findings: Findings) -> None:
    """Say everything, and stop if it is a problem."""
    for warning in findings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if findings.problems:
        raise NotReady(
            "\n".join(("it cannot be done yet:", *(f"- {p}" for p in findings.problems)))
        )


def _try(gcloud: Gcloud, place: Place, name: str, url: str | None) -> None:
    if url is None and place.front == "load-balancer":
        click.echo("Not tried, as only the load balancer reaches it: make smoke URL=https://…")
        return
    try:
        url = url or gcloud.ask(
            "run", "services", "describe", name,
            f"--project={place.project}", f"--region={place.region}", "--format=value(status.url)",
        )  # fmt: skip
        click.echo(f"Trying {url}")
        smoking.smoke(url, click.echo)
    except (Refused, Failed) as error:
        raise Failed(f"It is deployed, but: {error} `make rollback` takes it back.") from error


@deploy.command()
@project_option
@dry_run_option
def setup(project: str, dry_run: bool) -> None:
    """Make what a deployment needs, once: service accounts, secrets without a value, their roles.

    What is there stays as it is, so that it can be run again.
    """
    gcloud, findings = Gcloud(dry_run=dry_run), Findings()
    place = Place(project=checks.find_project(gcloud, project, findings), region="")
    _tell(findings)
    gcloud.do(commands.enable_apis(place))
    for service in (services.API, services.ADMIN):
        if not _exists(
            gcloud, place, "iam", "service-accounts", "describe", place.account(service)
        ):
            gcloud.do(commands.create_account(service, place))
    for name in services.ADMIN.secrets:
        if not _exists(gcloud, place, "secrets", "describe", name):
            if name in services.OPTIONAL_SECRETS:
                continue
            gcloud.do(commands.create_secret(name, place))
        for service in (services.API, services.ADMIN):
            if name in service.secrets:
                gcloud.do(commands.allow_secret(name, service, place))


def _exists(gcloud: Gcloud, place: Place, *question: str) -> bool:
    try:
        gcloud.ask(*question, f"--project={place.project}")
    except NotFound:
        return False
    except Refused as error:
        if gcloud.dry_run:  # Such as because the API is not enabled yet, which was only shown.
            return False
        raise Failed(f"{error} Run it again when that is mended.") from error
    return True


@deploy.command()
@click.option(
    "--service", type=SERVICE, envvar="SERVICE", default=services.API.name, show_default=True
)
@click.option("--revision", type=REVISION, envvar="REVISION", help="Another one than the previous.")
@project_option
@region_option
@dry_run_option
def rollback(service: str, revision: str | None, project: str, region: str, dry_run: bool) -> None:
    """Send all traffic to the revision that served before this one.

    It takes seconds, since nothing is built. The next deployment serves its own again.
    """
    gcloud, findings = Gcloud(dry_run=dry_run), Findings()
    project = checks.find_project(gcloud, project, findings)
    if not region:
        findings.problems.append("REGION is missing.")
    _tell(findings)
    place = Place(project=project, region=region)
    found = revisions.listed(gcloud, service, place)
    names = [one.name for one in found]
    if revision is not None and revision not in names:
        raise NotReady(f"{service} has no revision {revision}, but {', '.join(names)}.")
    target = revision or revisions.previous(found).name
    for one in found:
        notes = [
            note
            for note, holds in (
                ("serves", one.serves),
                ("never worked", not one.is_ready),
                ("will serve", one.name == target),
            )
            if holds
        ]
        click.echo(f"{one.name}  {one.created}  {', '.join(notes)}".rstrip(), err=True)
    gcloud.do(commands.serve(service, place, target))


@deploy.command()
@url_option
@click.option("--domain", envvar="PROBE_DOMAIN", default="example.com", help="Of its address.")
def smoke(url: str | None, domain: str) -> None:
    """Sign a made-up user up, log in and out, and delete it again."""
    smoking.smoke(url or "", click.echo, domain)


def main() -> None:
    """Run a command, and end with its exit code."""
    try:
        sys.exit(deploy.main(prog_name="python -m deploy", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
