"""Secrets taken out of what is logged, shown, and told of a failure.

Credentials come by environment only, so their values are known: a stage that prints one (a
traceback with a URL, a debug line of a client) does not carry it into the server's log, nor does an
exception that quotes one carry it into the state of its run.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar, get_type_hints

from fer.errors import WorkflowError

MASK = "********"

P = ParamSpec("P")
T = TypeVar("T")

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


def redacted(function: Callable[P, T]) -> Callable[P, T]:
    """A flow's or task's function, whose exceptions quote no secret.

    Prefect logs an exception with those it came from, and makes its text the state's message.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            clean = redactor()
            if _clean(error, clean, set()):
                raise
            text = clean(f"{type(error).__name__}: {error}")
        # Its text is made of something else than its arguments.
        raise WorkflowError(text)

    # Prefect checks parameters by these, and would look their names up in this module.
    with suppress(NameError):  # a name that only type checkers have: no parameter of a flow
        run.__annotations__ = get_type_hints(function, include_extras=True)
        vars(run)["__signature__"] = inspect.signature(function, eval_str=True)
    return run


def _clean(error: BaseException, clean: Callable[[str], str], seen: set[int]) -> bool:
    """Mask what an exception and those it came from say; whether that could be done."""
    seen.add(id(error))
    error.args = tuple(clean(one) if isinstance(one, str) else one for one in error.args)
    if isinstance(error, OSError):  # which has kept its arguments elsewhere
        for name in ("strerror", "filename", "filename2"):
            if isinstance(value := getattr(error, name, None), str):
                setattr(error, name, clean(value))
    for name in ("__cause__", "__context__"):
        before = getattr(error, name)
        if before is not None and id(before) not in seen and not _clean(before, clean, seen):
            setattr(error, name, None)
    return clean(str(error)) == str(error)
