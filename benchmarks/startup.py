"""How long a process takes to import fer, to print its help, and to give a first prediction.

    python benchmarks/startup.py --model models/package --runs 10

Each figure is a whole process, started anew; the variants take turns, so that a busy moment hits
all of them. An empty Python process is measured beside them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PREDICT = """
import numpy as np
from fer import Recognizer
crop = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
Recognizer.load({model!r}).predict(crop)
"""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--model", help="package folder or model.onnx; left out: no prediction")
    arguments = parser.parse_args()
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import fer": [sys.executable, "-c", "import fer"],
        "fer --help": [sys.executable, "-m", "fer", "--help"],
    }
    if arguments.model:
        code = PREDICT.format(model=arguments.model)
        commands["first prediction"] = [sys.executable, "-c", code]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(arguments.runs):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    print(f"{'process':<18}{'min s':>8}{'median s':>10}{'max s':>8}   ({arguments.runs} runs)")
    for name, times in seconds.items():
        print(f"{name:<18}{min(times):>8.3f}{statistics.median(times):>10.3f}{max(times):>8.3f}")


if __name__ == "__main__":
    main()
