"""`fer live`: expressions in front of a camera."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer.cli.console import JsonFlag, emit, note
from fer.cli.predict import AlignOption, ModelOption, ParamsOption, RegistryOption
from fer.cli.video import load_sections

if TYPE_CHECKING:
    from fer.inference.live import LiveFrame, LiveReport

app = typer.Typer()


@app.command()
def live(
    source: Annotated[
        str, typer.Argument(help="A camera's index, a stream's URL, or a file.")
    ] = "0",
    model: ModelOption = None,
    registry: RegistryOption = None,
    params: ParamsOption = None,
    align: AlignOption = None,
    record: Annotated[
        Path | None, typer.Option(metavar="OUT.mp4", help="Record what the window shows.")
    ] = None,
    window: Annotated[bool, typer.Option("--window/--no-window", help="Open a window.")] = True,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after so many seconds.")
    ] = None,
    benchmark: Annotated[
        int | None,
        typer.Option(min=20, metavar="N", help="End after N frames; print latencies per stage."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show faces and their expressions as they happen.

    Escape or q ends. A camera that is unplugged is waited for. Where no window can be had, that
    is said and the faces are printed, once a second.
    """
    from fer.errors import StoreError, VideoError
    from fer.inference.camera import Camera
    from fer.inference.live import Live
    from fer.inference.recognizer import Recognizer
    from fer.inference.screen import Recording, open_window

    faces, settings = load_sections(params, align)
    recording = Recording(record) if record else None
    recognizer = Recognizer.load(model, registry=registry, faces=faces)
    with Camera(source, repeat=benchmark is not None) as camera:
        screen, why = open_window() if window and benchmark is None else (None, "")
        if why:
            note(f"[yellow]No window: {why}.[/yellow] Ctrl-C ends.")
        session = Live(camera, recognizer, settings, screen=screen, recording=recording)
        printer = _Printer() if screen is None and benchmark is None else None
        failure = None
        try:
            session.run(frames=benchmark, seconds=seconds, on_frame=printer, on_signal=_say)
        except KeyboardInterrupt:
            note("Ended.")
        except (StoreError, VideoError) as error:  # what was seen until then is reported
            failure = error
    report = session.report
    emit(report.as_dict(), as_json, lambda: _text(report, benchmark is not None))
    if failure is not None:
        raise failure


def _say(there: bool) -> None:
    """Say that the source went away or came back; its address may hold a password."""
    if there:
        note("[green]The source is back.[/green]")
    else:
        note("[yellow]No signal: waiting for the source to come back.[/yellow] Ctrl-C ends.")


class _Printer:
    """Says once a second what is seen."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, frame: LiveFrame) -> None:
        if frame.time < self._next:
            return
        self._next = frame.time + 1.0
        from fer.expressions import EXPRESSIONS

        seen = [
            f"{face.track}: {EXPRESSIONS[(best := int(face.probabilities.argmax()))]} "
            f"{face.probabilities[best]:.0%}"
            for face in frame.faces
        ]
        note(f"{frame.time:7.1f} s  {frame.fps:4.0f} frames/s  {', '.join(seen) or 'no face'}")


def _text(report: LiveReport, stages: bool) -> str:
    lines = [
        f"[bold]{report.frames}[/bold] frames in {report.seconds:.1f} s "
        f"({report.frames_per_second:.1f} frames/s), {report.passed_over} passed over; "
        f"{report.tracks} tracks, {report.detections} detections"
    ]
    if report.returns:
        lines.append(f"The source went away and came back {report.returns} times")
    if stages:
        lines.append(f"{'ms':<10}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
        for name, one in report.latency_ms.items():
            lines.append(
                f"{name:<10}{one['p50']:>9.1f}{one['p95']:>9.1f}{one['p99']:>9.1f}{one['max']:>9.1f}"
            )
    return "\n".join(lines)
