"""How a flow ends in words of its own."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.states import Completed

T = TypeVar("T")


def completed(data: T, name: str, message: str) -> T:
    """What a flow returns to end as the state `name` with `message`.

    Prefect takes a returned state as the run's end, and gives whoever called the flow its data:
    hence the type.
    """
    return cast(T, Completed(name=name, message=message, data=data))
