"""This machine and this installation."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Final

from fer.doctor.check import Finding
from fer.settings import settings

DISTRIBUTION: Final = "fer-workflow"
_LITTLE_SPACE: Final = 2e9
_GPU_SECONDS: Final = 180
_NONE: Final = {"", "-1", "none", "NoDevFiles"}  # ways to say that no card is to be used
_ASK_TENSORFLOW: Final = (
    "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
)


def processor() -> str:
    """The processor's name, as measurements state it."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def versions() -> list[Finding]:
    """Python, and every package that is installed beside what this one asks for."""
    from packaging.requirements import Requirement

    python = Finding(
        "python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    wrong, found = [], 0
    for text in metadata.requires(DISTRIBUTION) or []:
        wanted = Requirement(text)
        extra = wanted.marker is not None and "extra" in str(wanted.marker)
        if wanted.marker and not extra and not wanted.marker.evaluate():
            continue
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            if not extra:
                wrong.append(f"{wanted.name} is missing")
            continue
        found += 1
        if not wanted.specifier.contains(installed, prereleases=True):
            wrong.append(f"{wanted.name} {installed} is installed, {wanted.specifier} is wanted")
    ours = metadata.version(DISTRIBUTION)
    if wrong:
        advice = "Install anew from the lock: make install, or pip install -c constraints.txt ..."
        return [python, Finding("packages", "failed", "; ".join(wrong), advice)]
    return [python, Finding("packages", "ok", f"{DISTRIBUTION} {ours}, {found} packages fit")]


def disk() -> list[Finding]:
    """Whether the cache can be written, and how much room there is."""
    cache = settings().cache
    cache.mkdir(parents=True, exist_ok=True)
    probe = cache / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"probe")
    except OSError as error:
        advice = "Set FER_CACHE to a folder that can be written."
        return [Finding("cache", "failed", f"{cache}: {error.strerror}", advice)]
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(cache).free
    text = f"{cache} can be written, {free / 1e9:.1f} GB free"
    if free < _LITTLE_SPACE:
        return [Finding("cache", "warning", text, "Free space, or set FER_CACHE to another disk.")]
    return [Finding("cache", "ok", text)]


def gpu() -> list[Finding]:
    """The GPUs of the machine, and whether training will use them."""
    cards = _cards()
    cpu = f"training and inference use {os.cpu_count()} CPU cores"
    if not cards:
        return [Finding("gpu", "ok", f"none; {cpu}")]
    names = ", ".join(name for name, _ in cards)
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = _visible(chosen, [uuid for _, uuid in cards])
    if wanted == 0:
        text = f"{names}; CUDA_VISIBLE_DEVICES={chosen} leaves none of them: {cpu}"
        if chosen in _NONE:
            return [Finding("gpu", "ok", text)]
        advice = f"Name cards from 0 to {len(cards) - 1}, or unset CUDA_VISIBLE_DEVICES."
        return [Finding("gpu", "failed", text, advice)]
    if wanted < len(cards):
        names += f"; CUDA_VISIBLE_DEVICES={chosen} leaves {wanted}"
    if not _installed("tensorflow", "tensorflow-cpu"):
        return [Finding("gpu", "ok", f"{names}; TensorFlow is not installed here")]
    done = subprocess.run(
        [sys.executable, "-c", _ASK_TENSORFLOW],
        capture_output=True,
        text=True,
        timeout=_GPU_SECONDS,
        check=False,
    )
    seen = done.stdout.strip() or "0"
    if seen == str(wanted):
        return [Finding("gpu", "ok", f"{names}; TensorFlow sees {seen}")]
    return [
        Finding(
            "gpu",
            "failed",
            f"{names}; TensorFlow sees {seen}",
            "Install its CUDA libraries: pip install -c constraints.txt '.[train,gpu]' in a fresh "
            "environment; check CUDA_VISIBLE_DEVICES.",
        )
    ]


def _cards() -> list[tuple[str, str]]:
    """Name and UUID of each card that the driver knows."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    done = subprocess.run(
        [program, "--query-gpu=name,uuid", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        return []
    lines = (line.rpartition(",") for line in done.stdout.splitlines() if line.strip())
    return [(name.strip(), uuid.strip()) for name, _, uuid in lines]


def _visible(chosen: str | None, uuids: list[str]) -> int:
    """How many of the cards CUDA_VISIBLE_DEVICES leaves to a program.

    It names them by number or by the beginning of a UUID, and CUDA ignores what follows the first
    that is not there. A part of a card (MIG) is one device, and is not looked up.
    """
    if chosen is None:
        return len(uuids)
    count = 0
    for entry in map(str.strip, chosen.split(",")):
        known = (
            int(entry) < len(uuids)
            if entry.isdecimal()
            else bool(entry) and any(uuid.startswith(entry) for uuid in uuids)
        )
        if not known and not entry.startswith("MIG-"):
            break
        count += 1
    return count


def inference() -> list[Finding]:
    """A prediction and a face detection, here and now."""
    import numpy as np

    from fer.faces.detector import make_detector
    from fer.inference.recognizer import Recognizer
    from fer.params import FacesParams
    from fer.reference import FOLDER

    started = time.perf_counter()
    crop = np.zeros((48, 48), np.uint8)
    recognizer = Recognizer.load(FOLDER)
    recognizer.predict(crop)
    first = time.perf_counter() - started
    started = time.perf_counter()
    recognizer.predict(crop)
    next_one = time.perf_counter() - started
    text = f"the shipped model: first face {first:.2f} s, then {next_one * 1000:.0f} ms a face"
    make_detector(FacesParams()).detect(np.zeros((120, 160, 3), np.uint8))
    return [
        Finding("model", "ok", text),
        Finding("detector", "ok", f"dlib {metadata.version(_dlib())} runs"),
    ]


def _dlib() -> str:
    return "dlib-bin" if _installed("dlib-bin") else "dlib"


def _installed(*names: str) -> bool:
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return True
    return False


def project(folder: Path) -> list[Finding]:
    """Whether params.yaml describes a run."""
    path = folder / "params.yaml"
    if not path.is_file():
        text = f"no params.yaml in {folder.resolve()}"
        return [Finding("params", "skipped", text, "Run it in a checkout to check that too.")]
    from fer.params import load_params

    load_params(path)
    return [Finding("params", "ok", f"{path.resolve()} describes a run")]
