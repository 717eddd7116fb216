"""The exported model beside other engines: images per second, start, file size, accuracy.

    python benchmarks/engines.py --faces data/prepared/faces.parquet > docs/engines.md

OpenVINO is no part of this project; with it, from the checkout:

    pip install --no-deps --target build/engines openvino openvino-telemetry
    PYTHONPATH=build/engines python benchmarks/engines.py --model models/package --sizes 48 96

Everything is made from one package's network. SavedModel, LiteRT: the bare network, 48 px crops
in. ONNX: with the preprocessing inside; `as converted` is what the converter gives, without
fer/training/onnx_graph.py. `by fer quantize`: as that command makes it. `int8`: all weights and
activations, by TensorFlow's converter; `weights`: activations stay floats between the convolutions.
One thread each; each engine is a process of its own, and they take turns, round by round. Keras's
probabilities are what differences are measured against. At a size other than the one a network was
trained at, its accuracy says little.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import report
from numpy.typing import NDArray

Crops = NDArray[np.uint8]
Predict = Callable[[Crops], NDArray[np.float32]]

SAVED_MODEL = "TensorFlow SavedModel"
BATCHES = (1, 32)
CALIBRATION = 256
"""Training faces that int8 is calibrated on."""

PAGE = """# The exported model beside other engines

{machine}. Made from {model} by `benchmarks/engines.py`, which says what each line is and how to
have OpenVINO beside it. One thread each, in turns; {rounds} rounds: median (smallest to
largest)."""


def saved_model(path: Path) -> Predict:
    """TensorFlow, as `keras.Model.export` writes for it."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = tf.saved_model.load(path)
    return lambda crops: softmax(loaded.serve(tf.constant(floats(crops))).numpy())


def library(path: Path) -> Predict:
    """As the library does it, by the ending of the file."""
    from fer.inference.classifier import Classifier

    return Classifier(path, threads=1).probabilities


def openvino(precision: str) -> Callable[[Path], Predict]:
    """From the exported ONNX; told no precision, it computes in bfloat16 where the CPU can."""

    def load(path: Path) -> Predict:
        import openvino as ov

        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
        }
        compiled = ov.Core().compile_model(path, "CPU", options)
        return lambda crops: np.array(compiled({"faces": crops[..., None]})["probabilities"])

    return load


def litert(path: Path) -> Predict:
    """The runtime that was TensorFlow Lite, with its XNNPACK kernels."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    entry, end = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]
    allocated: list[int] = []

    def predict(crops: Crops) -> NDArray[np.float32]:
        if allocated != [len(crops)]:
            interpreter.resize_tensor_input(entry, (len(crops), *crops.shape[1:], 1))
            interpreter.allocate_tensors()
            allocated[:] = [len(crops)]
        interpreter.set_tensor(entry, floats(crops))
        interpreter.invoke()
        return softmax(interpreter.get_tensor(end["index"]))

    return predict


ENGINES: dict[str, tuple[str, Callable[[Path], Predict]]] = {
    SAVED_MODEL: ("saved_model", saved_model),
    "ONNX Runtime, as converted": ("converted.onnx", library),
    "ONNX Runtime": ("model.onnx", library),
    "OpenVINO float32": ("model.onnx", openvino("f32")),
    "OpenVINO bfloat16": ("model.onnx", openvino("bf16")),
    "LiteRT float32": ("float32.tflite", litert),
    "LiteRT int8": ("int8.tflite", litert),
    "LiteRT int8, by fer quantize": ("quantized.tflite", library),
    "LiteRT int8 weights": ("weights.tflite", litert),
}
"""What each is loaded from, and how."""


def floats(crops: Crops) -> NDArray[np.float32]:
    """As the bare network takes them, (n, 48, 48, 1)."""
    return crops[..., None].astype(np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def prepare(options: argparse.Namespace, folder: Path, size: int) -> None:
    """Write every engine's file, and faces.npz with what Keras says of the faces."""
    import dataclasses

    import tensorflow as tf

    from fer.registry.package import ModelPackage
    from fer.training.export import _add_ends, _convert, _exported, _renamed
    from fer.training.litert import float_model, in_integers, ranges
    from fer.training.network import NetworkConfig, at_size
    from fer.training.warm_start import network_of

    package = ModelPackage.open(options.model)
    config = NetworkConfig.read(package.file("network.json"))
    network = network_of(package)
    if size != config.input_size:
        config, network = dataclasses.replace(config, input_size=size), at_size(network, size)
    converted = _renamed(_add_ends(_convert(network, config), config))
    (folder / "converted.onnx").write_bytes(converted.SerializeToString())
    (folder / "model.onnx").write_bytes(_exported(network, config).SerializeToString())
    write_saved_model(network, folder / "saved_model")
    crops, labels, parts, calibration = faces(options.faces)

    def representative() -> Any:
        for crop in calibration:
            yield [floats(crop[None])]

    for name in ("float32.tflite", "int8.tflite", "weights.tflite"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved_model"))
        if name != "float32.tflite":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if name == "int8.tflite":  # without such faces each image has ranges of its own
            converter.representative_dataset = representative
        (folder / name).write_bytes(converter.convert())
    model = float_model(network)
    (folder / "quantized.tflite").write_bytes(in_integers(model, ranges(model, calibration)))
    expected = softmax(network.predict(floats(crops), batch_size=256, verbose=0))
    np.savez(folder / "faces.npz", crops=crops, labels=labels, parts=parts, expected=expected)


def write_saved_model(network: Any, path: Path) -> None:
    """The network for inference; `network.export` may write one that drops and normalises anew."""
    import keras

    archive = keras.export.ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serve",
        lambda faces: network(faces, training=False),
        [keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="float32")],
    )
    archive.write_out(path, verbose=False)


def faces(path: Path | None) -> tuple[Crops, NDArray[Any], NDArray[Any], Crops]:
    """Faces of validation and test, labels, their parts, and training faces for calibration.

    Without a prepared table: drawn faces, which belong to no part.
    """
    if path is None:
        from fer.dataset.synthetic import draw_face
        from fer.expressions import Expression

        generator = np.random.default_rng(0)
        labels = np.repeat(np.arange(len(Expression)), 24)
        crops = np.stack([draw_face(Expression(int(one)), generator) for one in labels])
        return crops, labels, np.full(len(labels), "drawn"), crops[::2]
    from fer.dataset.table import FaceTable

    table = FaceTable.read(path)
    train = table.part("train").pixels
    table = table.rows(np.isin(table.split, ["validation", "test"]))
    chosen = np.random.default_rng(0).choice(len(train), min(CALIBRATION, len(train)), False)
    return table.pixels, table.expression, table.split, train[np.sort(chosen)]


def work(name: str, folder: Path) -> None:
    """A worker: one engine, `speed BATCH IMAGES` or `accuracy` per line."""
    file, load = ENGINES[name]
    known = np.load(folder / "faces.npz")
    crops, engines = known["crops"], []

    def answer(line: str) -> Any:
        what, *numbers = line.split()
        try:
            if not engines:
                engines.append(load(folder / file))
            predict = engines[0]
            if what == "accuracy":
                return judged(predict, known)
            batch, images = map(int, numbers)
            return speed(predict, crops[:batch] if batch <= len(crops) else crops, images)
        except Exception as error:  # an engine that is absent or fails is a line of the table
            return {"left_out": f"{type(error).__name__}: {error}".splitlines()[0]}

    report.serve(answer)


def speed(predict: Predict, crops: Crops, images: int) -> float:
    """Images per second over about so many images."""
    predict(crops)
    calls = max(1, images // len(crops))
    started = time.perf_counter()
    for _ in range(calls):
        predict(crops)
    return calls * len(crops) / (time.perf_counter() - started)


def judged(predict: Predict, known: Any) -> dict[str, float]:
    """Largest probability difference from Keras's, and the share of right answers by part."""
    crops = known["crops"]
    found = np.concatenate([predict(crops[at : at + 32]) for at in range(0, len(crops), 32)])
    right = found.argmax(axis=1) == known["labels"]
    figures = {"largest_difference": float(np.abs(found - known["expected"]).max())}
    parts = [part for part in ("validation", "test") if part in known["parts"]]
    return figures | {part: float(right[known["parts"] == part].mean()) for part in parts}


def first_result(name: str, folder: Path) -> float:
    """Seconds from the start of a process to its first probabilities."""
    command = [sys.executable, __file__, "--folder", str(folder), "--first", name]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def compared(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of all engines at one size."""
    results: dict[str, Any] = {name: {"first": [], **{b: [] for b in BATCHES}} for name in ENGINES}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in ENGINES:
            worker = report.Worker(
                Path(__file__), "--folder", str(folder), "--worker", name, OMP_NUM_THREADS="1"
            )
            workers[name] = stack.enter_context(worker)
        for name, worker in list(workers.items()):
            figures = worker.ask("accuracy")
            results[name] |= figures
            if "left_out" in figures:
                del workers[name]
        for number in range(1, options.rounds + 1):
            for name, worker in workers.items():
                for batch in BATCHES:
                    images = options.images * (2 if batch > 1 else 1)
                    results[name][batch].append(round(worker.ask(f"speed {batch} {images}"), 1))
                results[name]["first"].append(round(first_result(name, folder), 2))
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    for name, (file, _) in ENGINES.items():
        path = folder / file
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        results[name]["megabytes"] = round(sum(one.stat().st_size for one in files) / 1e6, 1)
    return results


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The lines of a table; the ratio is of rounds, in which the machine was the same."""
    found = []
    for name, one in results.items():
        if "left_out" in one:
            found.append([name, f"left out: {one['left_out']}", *[""] * 7])
            continue
        pairs = zip(one[1], results[SAVED_MODEL][1], strict=True)
        found.append(
            [
                name,
                report.middle(one[1]),
                report.middle(one[32]),
                report.middle([ours / theirs for ours, theirs in pairs], 1),
                report.middle(one["first"], 1),
                f"{one['megabytes']:.1f}",
                f"{one['largest_difference']:.1e}",
                *(f"{one[part]:.2%}" if part in one else "" for part in ("validation", "test")),
            ]
        )
    return found


def main() -> None:
    """Measure and print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=Path,
        help="a package; left out: the one that ships, whose weights have 8 bits",
    )
    parser.add_argument("--faces", type=Path, help="the prepared table; left out: drawn faces")
    parser.add_argument("--sizes", type=int, nargs="+", help="left out: the network's own")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=200, help="a round at batch 1; twice at 32")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    for hidden in ("--worker", "--first", "--prepare"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if options.model is None:
        from fer.reference import FOLDER

        options.model = FOLDER
    if options.worker:
        work(options.worker, options.folder)
    elif options.first:
        file, load = ENGINES[options.first]
        load(options.folder / file)(np.zeros((1, 48, 48), np.uint8))
    elif options.prepare:
        prepare(options, options.folder, int(options.prepare))
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """What `main` does for a user."""
    sizes = options.sizes or [
        json.loads((options.model / "network.json").read_text())["input_size"]
    ]
    packages = ("tensorflow-cpu", "tensorflow", "onnxruntime", "openvino", "ai-edge-litert")
    document: dict[str, Any] = {"machine": report.machine(*packages), "sizes": {}}
    print(PAGE.format(machine=document["machine"], rounds=options.rounds, model=options.model))
    columns = ["engine, one thread", "batch 1, images/s", "batch 32, images/s",
               "times SavedModel at batch 1", "process start to first result, s", "file, MB",
               "largest difference from Keras", "validation", "test"]  # fmt: skip
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="fer-engines-") as name:
            command = [sys.executable, *sys.argv, "--folder", name, "--prepare", str(size)]
            subprocess.run(command, check=True, stdout=sys.stderr)
            document["sizes"][size] = compared(Path(name), options)
        print(
            f"\n## {size} px\n\n{report.table(columns, rows(document['sizes'][size]))}", flush=True
        )
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
