"""Where mail goes, whom it is from, and what is done by mail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from shared.environment import Environment
from shared.store.settings import users_file

if TYPE_CHECKING:
    from shared.mail.addresses import Mailbox
    from shared.mail.url import Hook, SmtpServer

Verification = Literal["off", "optional", "required"]
Delivery = Literal["after", "self"]

_NAME_MAX_LENGTH = 64


class MailSettings(NamedTuple):
    """Without `url` and `folder` no mail is sent, and nothing is done that needs one."""

    url: SmtpServer | Hook | None = None
    folder: Path | None = None
    """Of development, instead of `url`: each message is a file there."""
    sender: Mailbox | None = None
    reply_to: Mailbox | None = None
    public_url: str | None = None
    """What the links in mails begin with: an origin, without a slash at its end."""
    application: str = "AI-Coder"
    delivery: Delivery = "after"
    """`after`: after an answer. `self`: by a request of the service to itself, where the platform
    stops the CPU with the answer."""
    verification: Verification = "off"
    sign_in_by_mail: bool = False

    @property
    def enabled(self) -> bool:
        """Whether mail is sent; then there are `sender` and `public_url`."""
        return self.url is not None or self.folder is not None

    @property
    def asks_for_proof(self) -> bool:
        """Whether new users are asked by mail to prove their address."""
        return self.enabled and self.verification != "off"

    @classmethod
    def read(cls, env: Environment) -> MailSettings:
        """Read them, and leave problems with the environment."""
        has_url = env.text("MAIL_URL") is not None
        has_folder = not has_url and env.name == "development"
        application = _application(env)
        return cls(
            url=_url(env),
            folder=users_file(env).with_name("mail") if has_folder else None,
            sender=_mailbox(env, "MAIL_FROM") or _default_sender(env, application),
            reply_to=_mailbox(env, "MAIL_REPLY_TO"),
            public_url=_public_url(env),
            application=application,
            delivery=_delivery(env),
            verification=_verification(env, is_on=has_url or has_folder),
            sign_in_by_mail=_sign_in_by_mail(env, is_on=has_url or has_folder),
        )


def _url(env: Environment) -> SmtpServer | Hook | None:
    text, secret = env.text("MAIL_URL"), env.text("MAIL_HOOK_SECRET")
    if text is None:
        return None
    from shared.mail import url  # Where no mail is sent, nothing of it is needed.

    try:
        found = url.parse(text)
    except url.InvalidMailUrl as error:
        env.problems.append(f"MAIL_URL cannot be used: {error}.")
        return None
    if isinstance(found, url.SmtpServer):
        return found
    if secret is None:
        env.problems.append(
            "MAIL_HOOK_SECRET is missing: make one with `echo whsec_$(openssl rand -base64 32)`."
        )
        return found
    try:
        return replace(found, secrets=url.parse_hook_secrets(secret))
    except url.InvalidMailUrl as error:
        env.problems.append(f"MAIL_HOOK_SECRET cannot be used: {error}.")
        return found


def _mailbox(env: Environment, name: str) -> Mailbox | None:
    text = env.text(name)
    if text is None:
        return None
    from shared.mail.addresses import InvalidAddress, Mailbox

    try:
        return Mailbox.parse(text)
    except InvalidAddress as error:
        env.problems.append(
            f"{name} must be an address, or AI-Coder <no-reply@example.com>: {error}."
        )
        return None


def _default_sender(env: Environment, application: str) -> Mailbox | None:
    if env.text("MAIL_URL") is not None:
        if env.text("MAIL_FROM") is None:
            env.problems.append(
                "MAIL_FROM is missing: set the sender's address, such as "
                "AI-Coder <no-reply@example.com>."
            )
        return None
    if env.name != "development":
        return None
    from shared.mail.addresses import Mailbox

    return Mailbox(application, "no-reply@localhost")


def _public_url(env: Environment) -> str | None:
    text = env.text("PUBLIC_URL")
    if text is None:
        if env.name == "development":
            host = f"{env.application}.localhost".removeprefix(".")
            return f"http://{host}:{env.text('PORT') or 8080}"
        if env.text("MAIL_URL") is not None:
            env.problems.append(
                "PUBLIC_URL is missing: links in mails begin with it, such as "
                "https://app.example.com."
            )
        return None
    from shared.formats import origins

    try:
        origin = origins.parse_written(text.removesuffix("/"))
    except origins.InvalidOrigin as error:
        env.problems.append(
            f"PUBLIC_URL must be an origin, such as https://app.example.com: {error}."
        )
        return None
    if env.secure and origin.scheme != "https":
        env.problems.append("PUBLIC_URL must begin with https:// in production.")
    return str(origin)


def _application(env: Environment) -> str:
    name = env.text("APPLICATION_NAME") or MailSettings().application
    if not name.isprintable() or len(name) > _NAME_MAX_LENGTH:
        env.problems.append(
            f"APPLICATION_NAME must be at most {_NAME_MAX_LENGTH} printable characters."
        )
    return name


def _delivery(env: Environment) -> Delivery:
    # Cloud Run sets K_SERVICE, and takes the CPU away where it bills by the request.
    default = "self" if env.text("K_SERVICE") else "after"
    value = (env.text("MAIL_DELIVERY") or default).lower()
    if value not in get_args(Delivery):
        env.problems.append(f"MAIL_DELIVERY must be one of {', '.join(get_args(Delivery))}.")
        return "after"
    return cast("Delivery", value)


def _verification(env: Environment, *, is_on: bool) -> Verification:
    value = (env.text("EMAIL_VERIFICATION") or ("optional" if is_on else "off")).lower()
    if value not in get_args(Verification):
        env.problems.append(
            f"EMAIL_VERIFICATION must be one of {', '.join(get_args(Verification))}."
        )
        return "off"
    if value != "off" and not is_on:
        env.problems.append(f"EMAIL_VERIFICATION={value} needs mail: set MAIL_URL.")
    return cast("Verification", value)


def _sign_in_by_mail(env: Environment, *, is_on: bool) -> bool:
    wanted = env.boolean("SIGN_IN_BY_MAIL", default=False)
    if wanted and not is_on:
        env.problems.append("SIGN_IN_BY_MAIL=true needs mail: set MAIL_URL.")
    return wanted
