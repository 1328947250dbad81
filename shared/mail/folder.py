"""Mail of development: each message is a file that a mail program opens, and its link is logged."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from shared import files
from shared.deadlines import remaining
from shared.mail import mime
from shared.mail.message import Message
from shared.mail.settings import MailSettings
from shared.mail.transport import NotDelivered, recipient_of
from shared.observe import log

MAX_FILES = 500
_LINK = re.compile(r"^https?://\S+#\S+$", re.MULTILINE)
"""With a token; see `shared.mail.letters`, which gives it a line of its own."""


class FolderTransport:
    """Writes mail into a folder, which keeps the newest MAX_FILES."""

    def __init__(self, folder: Path, settings: MailSettings) -> None:
        """Write nothing yet."""
        assert settings.sender is not None, "mail is off"
        self._folder = folder
        self._sender = settings.sender
        self._reply_to = settings.reply_to

    def send(self, message: Message, deadline: float) -> None:
        """See `Transport.send`; what is sent twice is one file."""
        recipient = recipient_of(message)
        data = mime.encode(
            message, recipient, sender=self._sender, reply_to=self._reply_to, takes_8bit=True
        )
        path = self._folder / f"{message.id}.eml"
        try:
            with files.locked(self._folder, remaining(deadline)):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                files.replace(path, data)
                self._forget_old()
        except OSError as error:
            raise NotDelivered(
                f"{error.filename or path} cannot be written: {error.strerror or error}."
            ) from None
        found = _LINK.search(message.text)
        log.write(
            "INFO", f"A mail is in {path}", kind=message.kind, link=found[0] if found else None
        )

    def reach(self, _: float) -> None:
        """Tell whether a file can be written. Raises NotDelivered."""
        obstacle = files.obstacle(self._folder / "probe.eml")
        if obstacle is not None:
            raise NotDelivered(f"No mail can be written: {obstacle}.")

    def _forget_old(self) -> None:
        written = sorted(self._folder.glob("*.eml"), key=lambda path: path.lstat().st_mtime_ns)
        for path in written[:-MAX_FILES]:
            with suppress(OSError):
                path.unlink()
