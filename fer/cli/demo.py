"""`fer demo`: the whole workflow on drawn faces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fer.errors import UsageError

app = typer.Typer()


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Made if absent.")] = Path("build/demo"),
) -> None:
    """Run the whole workflow on drawn faces: no data, network, server or GPU needed.

    Example: fer demo
    """
    import subprocess
    import sys
    from importlib.util import find_spec

    if find_spec("prefect") is None or find_spec("dvc") is None:
        raise UsageError("The demo needs everything: pip install 'fer-workflow[all]', or make demo")
    # The flows are above this library, so they are started, not imported.
    command = [sys.executable, "-m", "flows.demo", "--folder", str(folder)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
