"""The command line, `python -m deploy`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
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
    "--dry-run", is_flag=True, envvar="DRY_RUN", help="Print the commands; change nothing."
)
project_option = click.option(
    "--project", type=PROJECT, envvar="PROJECT", default="", help="Default: gcloud's project."
)
region_option = click.option(
    "--region", type=REGION, envvar="REGION", default="", help="For example us-east5."
)
url_option = click.option("--url", envvar="URL", help="The public URL of the service.")


@click.group(
    epilog="Exit codes: 0 done; 1 failed; 2 not started, because something is missing or wrong; "
    "130 interrupted."
)
def deploy() -> None:
    """Deploy the functions to Google Cloud Run; see docs/DEPLOY.md.

    Each option is also an environment variable: --dry-run is DRY_RUN=1.
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
    "--service", type=SERVICE, envvar="SERVICE", help="The name of that function's service."
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
    """Check, deploy the public and the private service or one function, and smoke-test it."""
    if service is not None and function is None:
        raise NotReady("SERVICE requires FUNCTION: name the function to deploy as that service.")
    if url is not None:
        smoking.check_url(url)
    gcloud, findings = Gcloud(dry_run=dry_run), Findings(dry_run=dry_run)
    project = checks.find_project(gcloud, project, findings)
    place = Place(project=project, **options)
    deployed = services.chosen(function, service, services.applications(os.environ))
    checks.check(gcloud, place, deployed, os.environ, findings)
    _report(findings)
    place = _shown(place)
    to_test = None
    for deployment in deployed:
        settings = services.settings(deployment, place, os.environ)
        versions = {
            name: findings.versions[name]
            for name in deployment.secrets
            if name in findings.versions
        }
        gcloud.do(commands.deploy(deployment, place, settings, versions))
        gcloud.do(commands.serve_latest(deployment.name, place))
        if deployment.public and deployment.entry_point == "api":
            to_test = deployment.name
    if to_test and not dry_run:
        if deployed[0].applications and url is None:
            click.echo("Not tested: run make smoke URL=https://… for a host of each application.")
        else:
            _smoke_test(gcloud, place, to_test, url)


def _shown(place: Place) -> Place:
    """Fill in what is missing, which is so in a dry run only, with what is to be replaced."""
    return replace(place, project=place.project or "PROJECT", region=place.region or "REGION")


def _report(findings: Findings) -> None:
    """Print the warnings. Raises NotReady with the problems."""
    for warning in findings.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if findings.problems:
        raise NotReady(
            "\n".join(("the deployment is not ready:", *(f"- {p}" for p in findings.problems)))
        )


def _smoke_test(gcloud: Gcloud, place: Place, name: str, url: str | None) -> None:
    if url is None and place.front == "load-balancer":
        click.echo("Not tested: only the load balancer reaches it. Run make smoke URL=https://…")
        return
    try:
        url = url or gcloud.ask(
            "run", "services", "describe", name,
            f"--project={place.project}", f"--region={place.region}", "--format=value(status.url)",
        )  # fmt: skip
        click.echo(f"Testing {url}")
        smoking.smoke(url, click.echo)
    except (Refused, Failed) as error:
        raise Failed(f"Deployed, but: {error} `make rollback` undoes it.") from error


@deploy.command()
@project_option
@dry_run_option
def setup(project: str, dry_run: bool) -> None:
    """Create what a deployment needs: service accounts, empty secrets, and their roles.

    Existing ones stay unchanged, so that it can be run again.
    """
    gcloud, findings = Gcloud(dry_run=dry_run), Findings(dry_run=dry_run)
    place = Place(project=checks.find_project(gcloud, project, findings), region="")
    _report(findings)
    place = _shown(place)

    def exists(*question: str) -> bool:
        return findings.can_ask and _exists(gcloud, place, *question)

    gcloud.do(commands.enable_apis(place))
    for service in (services.API, services.ADMIN):
        if not exists("iam", "service-accounts", "describe", place.account(service)):
            gcloud.do(commands.create_account(service, place))
    public, private = services.chosen(None, applications=services.applications(os.environ))
    for name in private.secrets:
        if not exists("secrets", "describe", name):
            if name != services.ADMIN_SECRET and not checks.is_required(name, os.environ):
                continue
            gcloud.do(commands.create_secret(name, place))
        for service in (public, private):
            if name in service.secrets:
                gcloud.do(commands.allow_secret(name, service, place))


def _exists(gcloud: Gcloud, place: Place, *question: str) -> bool:
    try:
        gcloud.ask(*question, f"--project={place.project}")
    except NotFound:
        return False
    except Refused as error:
        if gcloud.dry_run:  # For example because the API was not really enabled.
            return False
        raise Failed(f"{error} Run it again when this is fixed.") from error
    return True


@deploy.command()
@click.option(
    "--service", type=SERVICE, envvar="SERVICE", default=services.API.name, show_default=True
)
@click.option("--revision", type=REVISION, envvar="REVISION", help="Default: the previous one.")
@project_option
@region_option
@dry_run_option
def rollback(service: str, revision: str | None, project: str, region: str, dry_run: bool) -> None:
    """Send all traffic to the previous revision.

    Takes seconds, since nothing is built. The next deployment serves its own revision again.
    """
    gcloud, findings = Gcloud(dry_run=dry_run), Findings()
    project = checks.find_project(gcloud, project, findings)
    if not region:
        findings.problems.append("REGION is missing.")
    _report(findings)
    place = Place(project=project, region=region)
    found = revisions.listed(gcloud, service, place)
    names = [candidate.name for candidate in found]
    if revision is not None and revision not in names:
        raise NotReady(f"{service} has no revision {revision}; it has {', '.join(names)}.")
    target = revision or revisions.previous(found).name
    for candidate in found:
        notes = [
            note
            for note, holds in (
                ("serves", candidate.serves),
                ("never worked", not candidate.is_ready),
                ("will serve", candidate.name == target),
            )
            if holds
        ]
        click.echo(f"{candidate.name}  {candidate.created}  {', '.join(notes)}".rstrip(), err=True)
    gcloud.do(commands.serve(service, place, target))


@deploy.command()
@url_option
@click.option(
    "--domain",
    envvar="PROBE_DOMAIN",
    default="example.com",
    help="Of the temporary user's address.",
)
def smoke(url: str | None, domain: str) -> None:
    """Sign up a temporary user, log in and out, and delete the user."""
    if not url:
        raise NotReady(
            "URL is missing: URL=https://… or, for `make dev`, URL=http://localhost:8080."
        )
    smoking.smoke(url, click.echo, domain)


def _in_words_of_make(error: click.UsageError) -> str:
    """Name variables, which is what make's caller has given, instead of options."""
    message = error.format_message()
    param = getattr(error, "param", None)
    if param is not None and param.envvar:
        return message.replace(param.get_error_hint(error.ctx), param.envvar)
    return f"{message} With make, options are variables, such as FUNCTION=login and DRY_RUN=1."


def main() -> None:
    """Run a command and exit with its code."""
    try:
        sys.exit(deploy.main(prog_name="python -m deploy", standalone_mode=False))
    except click.UsageError as error:
        if "UNDER_MAKE" in os.environ:
            click.echo(f"Error: {_in_words_of_make(error)}", err=True)
        else:
            error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
