"""The IAM policies that docs/registry.md states."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def documented_policies(
    checkout: Path, bucket: str = "BUCKET", prefix: str = "PREFIX"
) -> dict[str, dict[str, Any]]:
    """By name (reader, writer), for this bucket and prefix."""
    text = (checkout / "docs" / "registry.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- policy: (\w+) -->\n```json\n(.*?)```", text, re.DOTALL)
    return {
        name: json.loads(body.replace("BUCKET", bucket).replace("PREFIX", prefix))
        for name, body in blocks
    }
