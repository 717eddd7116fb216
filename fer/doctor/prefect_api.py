"""The Prefect server, its pools and their workers, asked over HTTP: fer needs no Prefect."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from fer.doctor.check import Finding
from fer.doctor.storage import clock

POOLS: Final = ("cpu", "gpu")
_SECONDS: Final = 15
_LATE_MINUTES: Final = 5


def server() -> list[Finding]:
    """Whether it answers, whose version it is, which pools have workers, which runs are late."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if not url:
        return [
            Finding(
                "prefect",
                "skipped",
                "PREFECT_API_URL is not set: flows run in their own process",
                "For schedules and workers start a server: infra/README.md.",
            )
        ]
    try:
        date, version = _ask(url, "/admin/version")
    except urllib.error.HTTPError as error:
        advice = (
            "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to what the server wants."
            if error.code in {401, 403}
            else "PREFECT_API_URL ends with /api: http://host:4200/api."
        )
        return [Finding("prefect", "failed", f"{url} answers {error.code}", advice)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        advice = "Start it (prefect server start), or correct PREFECT_API_URL."
        return [Finding("prefect", "failed", f"{url} does not answer: {reason}", advice)]
    found = [_same_version(url, str(version))]
    if date:
        found.append(clock("prefect clock", parsedate_to_datetime(date).timestamp()))
    return [*found, *(_pool(url, name) for name in POOLS), *_late(url)]


def _same_version(url: str, theirs: str) -> Finding:
    from importlib import metadata

    try:
        ours = metadata.version("prefect")
    except metadata.PackageNotFoundError:
        return Finding("prefect", "ok", f"{url}: version {theirs}; not installed here")
    if ours.split(".")[:2] == theirs.split(".")[:2]:
        return Finding("prefect", "ok", f"{url}: version {theirs}")
    advice = "Install the same version on server and workers: both from constraints.txt."
    return Finding("prefect", "warning", f"the server has {theirs}, this machine {ours}", advice)


def _pool(url: str, name: str) -> Finding:
    title = f"pool {name}"
    try:
        _, pool = _ask(url, f"/work_pools/{name}")
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return Finding(title, "failed", "it does not exist", "Create it: make deploy.")
    if pool.get("is_paused"):
        advice = f"prefect work-pool resume {name}"
        return Finding(title, "failed", "it is paused, so its runs wait", advice)
    _, workers = _ask(url, f"/work_pools/{name}/workers/filter", {})
    online = [one["name"] for one in workers if one.get("status") == "ONLINE"]
    if not online:
        return Finding(
            title,
            "failed",
            "no worker is online, so its runs wait",
            f"Start one: prefect worker start --pool {name}.",
        )
    return Finding(title, "ok", f"{len(online)} online: {', '.join(online[:3])}")


def _late(url: str) -> list[Finding]:
    body = {"flow_runs": {"state": {"name": {"any_": ["Late"]}}}, "limit": 50}
    _, runs = _ask(url, "/flow_runs/filter", body)
    now = datetime.now(UTC)
    ages = [
        (now - datetime.fromisoformat(run["expected_start_time"])).total_seconds() / 60
        for run in runs
        if run.get("expected_start_time")
    ]
    if not ages or max(ages) < _LATE_MINUTES:
        return [Finding("late runs", "ok", "none")]
    return [
        Finding(
            "late runs",
            "warning",
            f"{len(ages)}, the longest for {max(ages):.0f} minutes",
            "Their pool lacks a worker, or its limit is reached: prefect flow-run ls --state Late.",
        )
    ]


def _ask(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[str | None, Any]:
    """The answer's Date header and document."""
    headers = {"Content-Type": "application/json"}
    if secret := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    elif key := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    if not url.startswith(("http://", "https://")):
        raise ValueError("it is no http:// or https:// address")
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, headers)  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
        return answer.headers.get("Date"), json.loads(answer.read() or b"null")
