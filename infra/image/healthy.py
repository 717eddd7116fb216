"""Whether a server answers 200: `python infra/image/healthy.py URL`, for images without curl."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main(url: str) -> int:
    """Exit status 0 if `url` answers 200 within five seconds, else 1."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return 0 if answer.status == 200 else 1
    except (urllib.error.URLError, OSError) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
