"""Where the list is. Without it, what is revoked is known elsewhere after ten minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from shared.environment import Environment

if TYPE_CHECKING:
    from shared.revocations.url import RedisUrl


class RevocationSettings(NamedTuple):
    """Without `url` there is no list."""

    url: RedisUrl | None = None

    @classmethod
    def read(cls, env: Environment) -> RevocationSettings:
        """Read them, and leave problems with the environment."""
        return cls(url=_url(env))


def _url(env: Environment) -> RedisUrl | None:
    text = env.text("REDIS_URL")
    if text is None:
        return None
    from importlib.util import find_spec

    from shared.revocations import url  # Where there is no list, nothing of it is needed.

    if find_spec("redis") is None:
        env.problems.append(
            "REDIS_URL needs the package redis: run `cat requirements-redis.txt >> "
            "requirements.txt`, which make and a deployment install, or install that file yourself."
        )
    try:
        found = url.parse(text)
    except url.InvalidRedisUrl as error:
        env.problems.append(f"REDIS_URL cannot be used: {error}.")
        return None
    if env.secure and not found.tls and not found.is_on_this_machine:
        env.problems.append(
            "REDIS_URL must begin with rediss:// in production, unless the host is this machine: "
            "its password and answers would pass the network in the clear."
        )
    return found
