"""Hashes of every scheme that is understood, all of one password, as their systems write them."""

from __future__ import annotations

import re
from typing import NamedTuple, get_args

from shared.formats.hash_recognition import Scheme, recognise
from tests.support.emulator import ROOT

PASSWORD = "correct horse 42"
PEPPER = "synthetic-pepper"
SIGNER_KEY = (
    "2WYE7i2TFkUKDEiQPhoh1yaqR2+92iLxrFpIYCFs9CDVoImsk4T5XN5UkmssBGzhwV+TK23Ck1MYmlsBx15GIg=="
)


class Written(NamedTuple):
    """A hash as its system writes it, and what has to be said about it."""

    text: str
    scheme: Scheme | None = None
    key: str | None = None

    def stored(self, *peppers: str) -> str:
        return recognise(self.text, self.scheme, key=self.key, peppers=(PEPPER, *peppers))


def _read() -> dict[str, Written]:
    found = {}
    for line in (ROOT / "tests" / "data" / "hashes.tsv").read_text().splitlines():
        if not line.startswith("#"):
            name, text = line.split("\t")
            name = name.split()[0]
            said = next((scheme for scheme in get_args(Scheme) if scheme == name), None)
            if name == "phpass":
                said = "wordpress"
            found[name] = Written(text, said, PEPPER if name == "devise" else None)
    return found


def _at_no_cost(stored: str) -> str:
    for costs, least in (
        (r"\$i=\d+", "$i=1"),
        (r"\$ln=\d+", "$ln=1"),
        (r"\$m=\d+,t=\d+", "$m=64,t=1"),
        (r"\$(2[aby])\$\d\d", r"$\1$04"),
        (r"\$([PS])\$.", r"$\1$5"),
    ):
        stored = re.sub(costs, least, stored)
    return stored


WRITTEN = _read()
STORED = {name: written.stored() for name, written in WRITTEN.items()}
"""By the name of the scheme. The signer key of Firebase is taken out of the hash."""
FOREIGN = {name: text for name, text in STORED.items() if not text.startswith("$2")}
"""Those that are not plain bcrypt."""
CHEAP = {name: _at_no_cost(text) for name, text in FOREIGN.items()}
"""The same at the least costs that there are, which makes them the hashes of no known password."""
