"""The applications of a process: one, or several of which the host of a request chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.application import Application
from shared.observe import request_context
from shared.settings import Settings
from shared.store.start_up import check_users_file
from shared.web import hosts


class Applications:
    """Each with its settings, and whoever answers what belongs to none."""

    def __init__(self, all_settings: Sequence[Settings]) -> None:
        """Take the settings of each; one alone has no name."""
        first = all_settings[0]
        self.own = Application(_of_the_process(first) if first.application else first)
        """The only one; of several the one that answers probes, and hosts that are nobody's."""
        self._trusts_forwarded = first.web.trusts_forwarded_host
        self._by_host: dict[str, Application] = {}
        for settings in all_settings if first.application else ():
            app = Application(settings, self.own)
            self._by_host |= dict.fromkeys(settings.web.hosts, app)

    def at(self, environ: Mapping[str, Any]) -> Application | None:
        """Give the application whose host a request calls; None if it is nobody's."""
        if not self._by_host:
            return self.own
        host = hosts.called(environ, trusts_forwarded=self._trusts_forwarded)
        return self._by_host.get(hosts.name(host) or "")

    def warn_of_host(self, environ: Mapping[str, Any]) -> None:
        """Tell the operator, once for each, of a host that is called and is nobody's."""
        host = hosts.name(hosts.called(environ, trusts_forwarded=self._trusts_forwarded))
        sentence = "A host was called that no application has: add it to HOSTS if it is yours"
        if "HTTP_X_FORWARDED_HOST" in environ and not self._trusts_forwarded:
            sentence += ", or see TRUST_FORWARDED_HOST, as a proxy may have called by another name"
        self.own.notices.warn(sentence, host or "", host=host)

    def check_users_files(self) -> None:
        """Log what keeps users files from being written, and what waits in them."""
        for app in self.own.applications or [self.own]:
            with request_context.application(app.settings.application):
                check_users_file(app.settings.store)


def _of_the_process(settings: Settings) -> Settings:
    """Give what several applications have in common."""
    web = settings.web._replace(allowed_origins=frozenset(), hosts=frozenset(), sign_in_page=False)
    return Settings(environment=settings.environment, web=web, credentials=settings.credentials)
