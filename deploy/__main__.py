"""`python -m deploy`: what is done about a deployment, on the command line."""

from __future__ import annotations

import sys

import click

from deploy import smoke as smoking


@click.group(
    epilog="Exit codes: 0 done; 1 it failed; 2 nothing was tried, because something is missing or "
    "wrong; 130 interrupted."
)
def deploy() -> None:
    """Bring the functions to Google Cloud Run; docs/DEPLOY.md tells how."""


@deploy.command()
@click.option("--url", envvar="URL", required=True, help="The service, as its users reach it.")
@click.option("--domain", envvar="PROBE_DOMAIN", default="example.com", help="Of its address.")
def smoke(url: str, domain: str) -> None:
    """Sign a made-up user up, log in and out, and delete it again."""
    smoking.smoke(url, click.echo, domain)


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
