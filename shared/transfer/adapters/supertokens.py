"""SuperTokens: JSON as its import in bulk takes it."""

from __future__ import annotations

from shared.transfer.adapters.adapter import Adapter, Found
from shared.transfer.adapters.person import HASH_LEFT_BEHIND, Person, StaysBehind
from shared.transfer.adapters.values import Row, flag, full_name, members, moment, objects, text

_NAMES = ("name", "first_name", "last_name")


def _adapt(row: Row, person: Person, _: Found) -> None:
    methods = sorted(objects(row, "loginMethods"), key=lambda it: not flag(it, "isPrimary"))
    person.had_id(text(row, "externalUserId", "id", "userId"))
    addressed = [method for method in methods if text(method, "email")]
    if not addressed:
        raise StaysBehind("phone only" if methods else "no address")
    person.email = text(addressed[0], "email")
    metadata = members(row, "userMetadata")
    person.name = text(metadata, "name") or full_name(metadata, *_NAMES[1:])
    if set(metadata).difference(_NAMES):
        person.leave("metadata left behind")
    joined = [moment(method, "timeJoinedInMSSinceEpoch", "timeJoined") for method in methods]
    person.created = next((it for it in joined if it), None)
    own = [it for it in addressed if text(it, "email") == person.email]
    person.is_verified(any(flag(it, "isVerified", "verified") for it in own))
    for method in methods:
        recipe = text(method, "recipeId")
        if recipe == "emailpassword":
            if text(method, "email") == person.email:
                person.had_password(text(method, "passwordHash"))
            else:
                person.leave(f"{HASH_LEFT_BEHIND}: it is of a second address")
        elif recipe == "thirdparty":
            provider = text(method, "thirdPartyId") or ""
            if provider.split("-")[0] == "google":
                person.has_google(text(method, "thirdPartyUserId"))
            else:
                person.has_provider(provider)
        elif recipe != "passwordless":
            person.leave(f"login method {(recipe or '')[:40]} left behind")
    person.drop_addresses([text(it, "email") for it in addressed])
    for device in objects(row, "totpDevices"):
        person.has_totp(text(device, "secretKey"), period=device.get("period", 30))
    roles = [text(it, "role") for it in objects(row, "userRoles")]
    person.claims["roles"] = [role for role in roles if role is not None]


ADAPTER = Adapter("supertokens", "SuperTokens", _adapt, marks=(frozenset({"loginMethods"}),))
