"""`fer video`: who showed which expression when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer.cli.console import JsonFlag, emit, note, of_the_disk
from fer.cli.predict import AlignOption, ModelOption, ParamsOption, RegistryOption
from fer.clock import read_clock
from fer.errors import FerError, UsageError, VideoError

if TYPE_CHECKING:
    from fer.inference.video import VideoSummary
    from fer.params import FacesParams, VideoParams

app = typer.Typer()

_SHOWN = 20  # episodes that the report for people lists


@app.command()
def video(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Video files.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results; made if absent.")
    ] = Path(),
    model: ModelOption = None,
    registry: RegistryOption = None,
    params: ParamsOption = None,
    align: AlignOption = None,
    start: Annotated[
        str | None, typer.Option(help="Where to begin: seconds, 1:30 or 0:01:30.5.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Where to end, exclusive.")] = None,
    fps: Annotated[
        float | None,
        typer.Option(min=0.001, help="Frames analysed per second of video. Default: all."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Write NAME.csv too.")] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(metavar="OUT.mp4", help="Write the video with boxes and expressions."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Analyse videos: one row per face and frame, with time stamp and the person's number.

    Writes NAME.parquet, NAME.episodes.csv and NAME.json per file. Run it again after a kill and
    it goes on; a finished video is not repeated. A file that cannot be read, or whose results
    cannot be written, is named and the rest is done; the exit status is then 2.
    """
    from fer.inference.recognizer import Recognizer
    from fer.inference.video import analyze_video
    from fer.progress import Progress

    targets = _targets(files, output)
    if overlay is not None and len(files) > 1:
        raise UsageError("--overlay names one file, so name one video with it.")
    first, last = _seconds(start, "--start"), _seconds(end, "--end")
    faces, settings = load_sections(params, align)
    if fps is not None:
        settings = settings.model_copy(update={"sample_fps": fps})
    recognizer = Recognizer.load(model, registry=registry, faces=faces)
    documents: list[dict[str, Any]] = []
    texts: list[str] = []
    failed = 0
    with Progress("frames") as bar:
        for file, target in zip(files, targets, strict=True):
            bar.start(file.name)
            try:
                summary = analyze_video(
                    file,
                    recognizer,
                    target,
                    start=first,
                    end=last,
                    params=settings,
                    csv=csv,
                    overlay=overlay,
                    progress=bar.update,
                )
            except (FerError, OSError) as error:  # this file, not the others
                failed += 1
                text = (isinstance(error, OSError) and of_the_disk(error)) or str(error)
                documents.append({"video": str(file), "error": text})
                texts.append(f"[bold]{_plain(str(file))}[/bold]\n  [red]failed[/red]")
                note(f"[red]{_plain(text)}[/red]")
            else:
                documents.append({"error": None, **summary.as_dict()})
                texts.append(_text(file, summary))
    emit({"videos": documents}, as_json, lambda: "\n\n".join(texts))
    if failed:
        raise VideoError(f"{failed} of {len(files)} videos failed: see above.")


def load_sections(path: Path | None, align: bool | None = None) -> tuple[FacesParams, VideoParams]:
    """`faces` and `video` of a named params file, of ./params.yaml, or the defaults.

    Args:
        path: the file; None is ./params.yaml where there is one.
        align: in place of `faces.align`; None leaves it.
    """
    from fer.params import FacesParams, VideoParams, load_params

    faces, video = FacesParams(), VideoParams()
    if path is not None or Path("params.yaml").is_file():
        loaded = load_params(path or Path("params.yaml"))
        faces, video = loaded.faces, loaded.video
    return faces if align is None else faces.model_copy(update={"align": align}), video


def _targets(files: list[Path], folder: Path) -> list[Path]:
    if folder.is_file():
        raise UsageError(f"{folder} is a file; --output names a folder. Choose another.")
    targets = [folder / f"{file.stem}.parquet" for file in files]
    twice = {target for target in targets if targets.count(target) > 1}
    if twice:
        raise UsageError(
            f"Two of the videos would write {min(twice)}. Analyse them into two folders, "
            "with --output."
        )
    return targets


def _seconds(text: str | None, option: str) -> float | None:
    return None if text is None else read_clock(text, option)


def _text(file: Path, summary: VideoSummary) -> str:
    lines = [
        f"[bold]{_plain(str(file))}[/bold]  {summary.width}x{summary.height}, "
        f"{summary.start:.2f} to {summary.end:.2f} s"
    ]
    if summary.finished_before:
        lines.append(f"  {summary.frames} frames, analysed before")
    else:
        resumed = f", {summary.resumed} of them in an earlier run" if summary.resumed else ""
        lines.append(
            f"  {summary.frames} frames in {summary.seconds:.1f} s "
            f"({summary.frames_per_second:.1f} frames/s){resumed}"
        )
    lines.append(
        f"  {summary.faces} faces of {summary.tracks} tracks; "
        f"{summary.without_face} frames without a face"
    )
    lines += [f"  [yellow]{_plain(warning)}[/yellow]" for warning in summary.warnings]
    for one in summary.episodes[:_SHOWN]:
        lines.append(
            f"  {one['start']:>9.2f} to {one['end']:>8.2f} s  track {one['track']:<3} "
            f"[bold]{one['expression']:<9}[/bold] mean {one['mean']:.0%}, peak {one['peak']:.0%}"
        )
    if len(summary.episodes) > _SHOWN:
        lines.append(f"  ... {len(summary.episodes) - _SHOWN} more episodes")
    lines.append(f"  Results: {_plain(summary.results)}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
