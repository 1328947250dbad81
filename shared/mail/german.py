"""The mails in German."""

from __future__ import annotations

from shared.mail.wording import Language, Letter

_NOTHING_TO_DO = "Wenn Sie das waren, brauchen Sie nichts zu tun."
_MISTYPED = (
    "Wenn es nicht Ihr Konto ist, benutzen Sie den Link bitte nicht. Wahrscheinlich hat sich "
    "jemand bei der Adresse vertippt, und Sie brauchen sonst nichts zu tun."
)
_TO_NOBODY = "Geben Sie den Link an niemanden weiter, ganz gleich, wer danach fragt."
_SOMEBODY_ELSE = "Wenn Sie das nicht waren, hat vielleicht jemand anders Zugriff auf Ihr Konto."
_RESET = (
    "Gehen Sie bitte sofort auf $home und wählen Sie dort „Passwort vergessen?“. Sobald Sie ein "
    "neues Passwort gewählt haben, sind alle anderen abgemeldet."
)
_CONTACT = "Bitte melden Sie sich über $home sofort bei uns"
_ELSEWHERE = (
    "Falls Sie das Passwort dieses Kontos auch anderswo benutzen, ändern Sie es dort ebenfalls."
)
_MONTHS = (
    "Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober",
    "November", "Dezember",
)  # fmt: skip

GERMAN = Language(
    greeting="Guten Tag!",
    address="Falls die Schaltfläche nicht funktioniert, kopieren Sie diese Adresse in Ihren "
    "Browser:",
    footer="Diese Nachricht wurde automatisch von $application verschickt.",
    time="am $day. $month $year um $clock Uhr UTC (Ihre Ortszeit kann abweichen)",
    network=", von einem Internetanschluss aus, dessen IP-Adresse mit $addresses beginnt",
    months=_MONTHS,
    units=(
        (24 * 60 * 60, "einen Tag", "Tage"),
        (60 * 60, "eine Stunde", "Stunden"),
        (60, "eine Minute", "Minuten"),
    ),
    letters={
        "verification": Letter(
            subject="Bitte bestätigen Sie Ihre E-Mail-Adresse für $application",
            opening="Diese E-Mail-Adresse wurde für ein Konto bei $application angegeben. Wenn es "
            "Ihr Konto ist, bestätigen Sie bitte die Adresse:",
            button="E-Mail-Adresse bestätigen",
            if_it_was_you="Der Link gilt $lifetime lang. Danach können Sie einen neuen anfordern. "
            "Möglicherweise werden Sie nach Ihrem Passwort gefragt.",
            if_it_was_not=_MISTYPED,
        ),
        "password_reset": Letter(
            subject="Wählen Sie ein neues Passwort für $application",
            opening="Für Ihr Konto bei $application wurde ein neues Passwort angefordert. Mit "
            "diesem Link können Sie es wählen:",
            button="Neues Passwort wählen",
            if_it_was_you="Der Link gilt $lifetime lang und lässt sich nur einmal benutzen. Melden "
            "Sie sich danach auf allen Ihren Geräten mit dem neuen Passwort wieder an.",
            if_it_was_not="Angefordert wurde der Link $asked. Wenn Sie das nicht waren, können "
            f"Sie diese Nachricht ignorieren: Ihr Passwort bleibt, wie es ist. {_TO_NOBODY}",
        ),
        "login_link": Letter(
            subject="Ihr Link zur Anmeldung bei $application",
            opening="Für Ihr Konto bei $application wurde ein Link zur Anmeldung angefordert. "
            "Damit brauchen Sie kein Passwort:",
            button="Anmelden",
            if_it_was_you="Der Link gilt $lifetime lang und lässt sich nur einmal benutzen.",
            if_it_was_not="Angefordert wurde der Link $asked. Wenn Sie das nicht waren, können "
            "Sie diese Nachricht ignorieren: Durch die Anforderung allein kommt niemand in Ihr "
            f"Konto. {_TO_NOBODY}",
        ),
        "email_change": Letter(
            subject="Bitte bestätigen Sie Ihre neue E-Mail-Adresse für $application",
            opening="Diese E-Mail-Adresse wurde als neue Adresse für ein Konto bei $application "
            "angegeben. Wenn es Ihr Konto ist, bestätigen Sie bitte die Adresse:",
            button="Neue Adresse bestätigen",
            if_it_was_you="Der Link gilt $lifetime lang. Bis Sie ihn benutzen, behält das Konto "
            "seine bisherige Adresse. Möglicherweise werden Sie nach Ihrem Passwort gefragt.",
            if_it_was_not=_MISTYPED,
        ),
        "invitation": Letter(
            subject="Wählen Sie ein Passwort für $application",
            opening="$application ist umgezogen. Ihr Konto ist mitgekommen, Ihr Passwort konnte es "
            "nicht. Mit diesem Link können Sie eines wählen:",
            button="Passwort wählen",
            if_it_was_you="Der Link gilt $lifetime lang und lässt sich nur einmal benutzen. Danach "
            "wählen Sie „Passwort vergessen?“, wo Sie sich anmelden.",
            if_it_was_not="Wenn Sie dieses Konto nicht kennen, können Sie diese Nachricht "
            f"ignorieren. {_TO_NOBODY}",
        ),
        "address_taken": Letter(
            subject="Sie haben bereits ein Konto bei $application",
            opening="Jemand wollte sich mit dieser E-Mail-Adresse bei $application registrieren "
            "oder sie für ein anderes Konto verwenden. Mit dieser Adresse haben Sie aber schon ein "
            "Konto. Daran hat sich nichts geändert.",
            if_it_was_you="Wenn Sie das waren, melden Sie sich auf $home wie gewohnt an. Falls Sie "
            "Ihr Passwort nicht mehr wissen, wählen Sie dort „Passwort vergessen?“.",
            if_it_was_not="Wenn Sie das nicht waren, brauchen Sie nichts zu tun.",
        ),
        "password_changed": Letter(
            subject="Ihr Passwort für $application wurde geändert",
            opening="Das Passwort für Ihr Konto bei $application wurde geändert, und zwar $asked. "
            "Alle anderen Geräte wurden abgemeldet.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not=f"{_SOMEBODY_ELSE} {_RESET} Ändern Sie auch das Passwort Ihres "
            "Postfachs, falls jemand anders es kennen könnte.",
        ),
        "email_changed": Letter(
            subject="Die E-Mail-Adresse Ihres Kontos bei $application wurde geändert",
            opening="Ihr Konto bei $application hat eine neue E-Mail-Adresse. Mit der bisherigen "
            "können Sie sich nicht mehr anmelden, und weitere Nachrichten gehen an die neue.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not=f"{_SOMEBODY_ELSE} {_CONTACT}, damit wir Ihnen helfen können. "
            f"{_ELSEWHERE}",
        ),
        "account_deleted": Letter(
            subject="Ihr Konto bei $application wurde gelöscht",
            opening="Ihr Konto bei $application wurde gelöscht. Dies ist die letzte Nachricht "
            "dazu. Sie können sich jederzeit neu registrieren.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not="Wenn Sie das nicht waren, hatte jemand anders Zugriff auf Ihr Konto. "
            f"{_CONTACT}. {_ELSEWHERE}",
        ),
        "new_sign_in": Letter(
            subject="Neue Anmeldung bei $application",
            opening="Jemand hat sich mit Ihrem Konto bei $application angemeldet, und zwar $asked. "
            "Von dort aus wurde Ihr Konto bisher nicht benutzt.",
            if_it_was_you="Wenn Sie das waren, zum Beispiel auf Reisen oder mit einem neuen Handy, "
            "brauchen Sie nichts zu tun.",
            if_it_was_not=f"{_SOMEBODY_ELSE} {_RESET}",
        ),
    },
)
