"""The mails in English."""

from __future__ import annotations

from shared.mail.wording import Language, Letter

_NOTHING_TO_DO = "If it was you, there is nothing you need to do."
_MISTYPED = (
    "If it is not your account, please do not use the link. Somebody probably mistyped an address, "
    "and there is nothing else you need to do."
)
_TO_NOBODY = "Do not pass the link on to anybody, no matter who asks for it."
_SOMEBODY_ELSE = "If it was not you, somebody else may have access to your account."
_RESET = (
    "Please go to $home and choose “Forgot your password?” right away. Once you have chosen a new "
    "password, everybody else is signed out."
)
_CONTACT = "Please get in touch with us through $home right away"
_ELSEWHERE = "If you use the password of this account anywhere else, change it there, too."
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
)  # fmt: skip

ENGLISH = Language(
    greeting="Hello,",
    address="If the button does not work, copy this address into your browser:",
    footer="This message was sent automatically by $application.",
    time="on $day $month $year at $clock UTC (your local time may differ)",
    network=", from an internet connection whose IP address begins with $addresses",
    months=_MONTHS,
    units=(
        (24 * 60 * 60, "one day", "days"),
        (60 * 60, "one hour", "hours"),
        (60, "one minute", "minutes"),
    ),
    letters={
        "verification": Letter(
            subject="Please confirm your email address for $application",
            opening="This email address was given for an account with $application. If it is your "
            "account, please confirm the address:",
            button="Confirm email address",
            if_it_was_you="The link works for $lifetime. After that, you can ask for a new one. "
            "You may be asked for your password.",
            if_it_was_not=_MISTYPED,
        ),
        "password_reset": Letter(
            subject="Choose a new password for $application",
            opening="A new password was requested for your $application account. Use this link "
            "to choose one:",
            button="Choose a new password",
            if_it_was_you="The link works once, within $lifetime. Afterwards, sign in again "
            "with the new password on all your devices.",
            if_it_was_not="The request was made $asked. If it was not you, you can ignore this "
            f"message: your password stays as it is. {_TO_NOBODY}",
        ),
        "login_link": Letter(
            subject="Your link to sign in to $application",
            opening="A link to sign in was requested for your $application account. It lets "
            "you sign in without a password:",
            button="Sign in",
            if_it_was_you="The link works once, within $lifetime.",
            if_it_was_not="The request was made $asked. If it was not you, you can ignore this "
            f"message: the request alone lets nobody into your account. {_TO_NOBODY}",
        ),
        "email_change": Letter(
            subject="Please confirm your new email address for $application",
            opening="This email address was given as the new address of an account with "
            "$application. If it is your account, please confirm the address:",
            button="Confirm new address",
            if_it_was_you="The link works for $lifetime. Until you use it, the account keeps the "
            "address that it has now. You may be asked for your password.",
            if_it_was_not=_MISTYPED,
        ),
        "invitation": Letter(
            subject="Choose a password for $application",
            opening="$application has moved. Your account has come along, but your password could "
            "not. Use this link to choose one:",
            button="Choose a password",
            if_it_was_you="The link works once, within $lifetime. After that, choose “Forgot your "
            "password?” where you sign in.",
            if_it_was_not="If you do not know this account, you can ignore this message. "
            f"{_TO_NOBODY}",
        ),
        "address_taken": Letter(
            subject="You already have an account with $application",
            opening="Somebody tried to sign up for $application with this email address, or to use "
            "it for another account. But you already have an account with this address. Nothing "
            "about it has changed.",
            if_it_was_you="If it was you, sign in at $home as usual. If you do not remember your "
            "password, choose “Forgot your password?” there.",
            if_it_was_not="If it was not you, there is nothing you need to do.",
        ),
        "password_changed": Letter(
            subject="Your $application password was changed",
            opening="The password of your $application account was changed $asked. All other "
            "devices were signed out.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not=f"{_SOMEBODY_ELSE} {_RESET} Change the password of your mailbox "
            "as well if anybody else might know it.",
        ),
        "email_changed": Letter(
            subject="The email address of your $application account was changed",
            opening="Your $application account has a new email address. You can no longer sign in "
            "with this one, and further messages go to the new address.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not=f"{_SOMEBODY_ELSE} {_CONTACT}, so that we can help you. {_ELSEWHERE}",
        ),
        "account_deleted": Letter(
            subject="Your $application account was deleted",
            opening="Your $application account was deleted, and this is the last message about it. "
            "You can sign up again at any time.",
            if_it_was_you=_NOTHING_TO_DO,
            if_it_was_not="If it was not you, somebody else had access to your account. "
            f"{_CONTACT}. {_ELSEWHERE}",
        ),
        "new_sign_in": Letter(
            subject="New sign-in to your $application account",
            opening="Somebody signed in to your $application account $asked. Your account had not "
            "been used from there before.",
            if_it_was_you="If it was you, for example while travelling or with a new phone, there "
            "is nothing you need to do.",
            if_it_was_not=f"{_SOMEBODY_ELSE} {_RESET}",
        ),
    },
)
