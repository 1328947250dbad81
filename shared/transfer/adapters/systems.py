"""The systems by name."""

from __future__ import annotations

from shared.transfer.adapters import (
    aspnet,
    auth0,
    better_auth,
    clerk,
    cognito,
    django,
    firebase,
    keycloak,
    supabase,
    supertokens,
    wordpress,
)
from shared.transfer.adapters.adapter import Adapter

SYSTEMS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        firebase.ADAPTER,
        auth0.ADAPTER,
        supabase.ADAPTER,
        clerk.ADAPTER,
        better_auth.ADAPTER,
        django.adapter(),
        keycloak.ADAPTER,
        cognito.ADAPTER,
        supertokens.ADAPTER,
        wordpress.ADAPTER,
        aspnet.ADAPTER,
    )
}
MAPPED = ("csv", "json")
"""All others, with `--map`."""
OURS = "users"
"""No other system: a users file as the old server, an export or an old import has it."""
