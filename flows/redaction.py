"""Secrets taken out of what is logged.

Credentials come by environment only, so their values are known: a stage that prints one (a
traceback with a URL, a debug line of a client) does not carry it into the server's log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

MASK = "********"
_SECRET_NAME = re.compile(
    r"(SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|_KEY$|^KEY$|AUTH_STRING|NOTIFY_URL$)", re.I
)
_URL_LOGIN = re.compile(r"(?<=://)[^\s/@:]+:[^\s/@]+(?=@)")


def redactor(environment: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """A function that masks the values of secret variables, and logins in URLs.

    Values of fewer than eight characters are left: they would blot out ordinary words.
    """
    variables = os.environ if environment is None else environment
    values = {
        value
        for name, value in variables.items()
        if _SECRET_NAME.search(name) and len(value) >= 8 and not os.path.exists(value)
    }
    # The longest first: one secret may be the beginning of another.
    ordered = sorted(values, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def clean(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(MASK, text)
        return _URL_LOGIN.sub(MASK, text)

    return clean
