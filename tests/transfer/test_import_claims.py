"""What users of other systems bring along: claims, and the secret of a second factor."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from shared.application import open_store
from shared.credentials.encryption import Encryption
from shared.settings import Settings
from shared.transfer import rollback
from tests.support.transfers import Target, finish, nonzero, user

KEY = bytes(range(32))
CLAIMS = {"roles": ["editor", "Käse"], "plan": {"name": "pro", "seats": 3}, "a\tb": "c\\d\n"}


def _ada(**members: Any) -> dict[str, Any]:
    ada = user(1, claims=CLAIMS)
    secret = Encryption([KEY]).encrypt("JBSWY3DPEHPK3PXP", ada["id"])
    return ada | {"totpSecret": secret} | members


def test_they_come_along_and_back_and_are_proved(target: Target) -> None:
    rows = [_ada(), user(2, claims={}), user(3)]
    applied, _ = target.apply(rows)
    assert nonzero(applied.plan.counts) == {"new": 3}
    exported = json.loads(target.export())
    assert exported[0]["claims"] == CLAIMS
    assert [row.keys() & {"claims", "totpSecret"} for row in exported[1:]] == [set(), set()]
    assert Encryption([KEY]).decrypt(exported[0]["totpSecret"], exported[0]["id"])
    assert nonzero(target.apply(exported)[0].plan.counts) == {"identical": 3}
    assert nonzero(target.verify(rows)[0].counts) == {"identical": 3}
    ((claims,),) = target.run(f"SELECT claims FROM users WHERE id = '{exported[0]['id']}'")
    assert claims == json.dumps(CLAIMS, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def test_the_order_of_names_is_no_change_and_another_value_is_one_that_can_be_undone(
    target: Target,
) -> None:
    target.apply([_ada()])
    turned = dict(reversed(CLAIMS.items()))
    assert nonzero(target.apply([_ada(claims=turned)])[0].plan.counts) == {"identical": 1}
    before = target.export()
    later, _ = target.apply([_ada(claims={"roles": []}, totpSecret=None)])
    assert nonzero(later.plan.counts) == {"changed": 1}
    assert json.loads(target.export())[0]["claims"] == {"roles": []}
    finish(rollback.roll_back(target.database, str(later.batch), run_by="test"))
    assert target.export() == before


def test_the_account_shows_them_on_either_side_of_a_move(target: Target, tmp_path: Path) -> None:
    file = tmp_path / "users.json"
    file.write_text(json.dumps([_ada(), user(2)]))
    target.apply(json.loads(file.read_bytes()))
    url = target.server.url(target.name)
    for variables in ({"USERS_FILE": str(file)}, {"DATABASE_URL": url, "FALLBACK": "off"}):
        settings = Settings.from_env({"SESSION_SECRET": "x" * 32} | variables)
        with closing(open_store(settings)) as store:
            accounts = [store.account(user(number)["id"], sid="s") for number in (1, 2)]
        assert [account and account.claims for account in accounts] == [CLAIMS, {}]
