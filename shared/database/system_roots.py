"""Where the machine's root certificates are read from: one file with all, or a folder of them."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path

_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL finds a certificate in a folder: by the hash of its subject, and a number."""


def folder() -> str | None:
    """Give OpenSSL's folder of roots, if it has as many as OpenSSL's file; None to trust as usual.

    OpenSSL reads the whole file, which a first connection would wait 20 ms for, and of the folder
    the one root that it needs. A file that the environment names is the operator's choice; and one
    that has more than the folder may have been added to by hand.
    """
    paths = ssl.get_default_verify_paths()
    if paths.openssl_cafile_env in os.environ or not (paths.cafile and paths.capath):
        return None
    try:
        in_file = Path(paths.cafile).read_bytes().count(b"-----BEGIN ")
        in_folder = sum(bool(_HASHED.fullmatch(name)) for name in os.listdir(paths.capath))
    except OSError:
        return None
    return paths.capath if in_folder >= in_file else None
