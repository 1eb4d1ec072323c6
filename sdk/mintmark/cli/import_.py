"""`mintmark import`: bring in what another registry has, with its version numbers, times, aliases and lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mintmark.cli._foreign import import_model
from mintmark.cli._screen import failing_in_one_line, hints, out, show_json, show_table
from mintmark.client import Client
from mintmark.importers.found import Reader, SourceFailed, Trials
from mintmark.importers.running import Running, Summary

app = typer.Typer(no_args_is_help=True, help="Bring in what another registry has; running it twice imports once.")
app.command("json")(import_model)

UNDECIDED = 1
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Source:
    """What makes the reader of a source, and whether its runs come along."""

    reader: Callable[[], Reader]
    with_trials: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What every import takes, whatever the source."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Names like this, e.g. 'credit-*'; may be repeated.")
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False


Known = Annotated[
    str | None,
    typer.Option("--source-name", help="What the source is known by here, if its address is not for good."),
]


def _command(source: Callable[..., Source]) -> Callable[..., None]:
    """A command that imports: `source` says by its own parameters what is read, the Options come after them."""
    own = signature(source, eval_str=True)
    shared = signature(Options, eval_str=True).parameters

    @wraps(source)
    def command(**given: Any) -> None:
        options = Options(**{name: given.pop(name) for name in shared})
        _bring(source(**given), options)

    together = [*own.parameters.values(), *shared.values()]
    command.__signature__ = own.replace(parameters=together)  # type: ignore[attr-defined]  # what Typer goes by
    return app.command()(command)


@_command
def mlflow(
    url: Annotated[str, typer.Argument(help="Tracking URI, e.g. http://mlflow.internal:5000")],
    no_runs: Annotated[bool, typer.Option("--no-runs", help="Leave experiments and their runs out.")] = False,
    no_bytes: Annotated[bool, typer.Option("--no-bytes", help="Leave models' files where they are.")] = False,
    source_name: Known = None,
) -> Source:
    """Models, prompts and runs of an MLflow server (MLFLOW_TRACKING_TOKEN, or _USERNAME and _PASSWORD)."""
    from mintmark.importers.mlflow import Mlflow

    return Source(lambda: Mlflow(url, name=source_name, with_bytes=not no_bytes), with_trials=not no_runs)


@_command
def langfuse(
    url: Annotated[str, typer.Argument(help="Langfuse's address, e.g. https://cloud.langfuse.com")],
    source_name: Known = None,
) -> Source:
    """Prompts of a Langfuse project (LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY)."""
    from mintmark.importers.langfuse import Langfuse

    return Source(lambda: Langfuse(url, name=source_name))


@_command
def sagemaker(
    region: Annotated[str | None, typer.Option("--region", help="AWS region; boto3's own without it.")] = None,
    endpoint: Annotated[str | None, typer.Option("--endpoint-url", help="Another address of the API.")] = None,
    source_name: Known = None,
) -> Source:
    """Model package groups of a SageMaker registry, with boto3's credentials."""
    from mintmark.importers.sagemaker import SageMaker

    return Source(lambda: SageMaker(region=region, endpoint=endpoint, name=source_name))


@_command
def folder(
    path: Annotated[Path, typer.Argument(help="A folder of model files: lightgbm, onnx, skops, safetensors.")],
    source_name: Known = None,
) -> Source:
    """Model files; `credit.yaml` beside `credit.lgb` may name version, tags, metrics, licence, aliases."""
    from mintmark.importers.folder import Folder

    return Source(lambda: Folder(path, name=source_name))


@_command
def huggingface(
    path: Annotated[Path, typer.Argument(help="A downloaded model's folder, or its README.md.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it, e.g. 'org/model'.")] = None,
    source_name: Known = None,
) -> Source:
    """A model card and the files beside it, offline: licence, base model, data sets, results, weights."""
    from mintmark.importers.huggingface import HuggingFace

    return Source(lambda: HuggingFace(path, title=name, name=source_name))


def _bring(source: Source, options: Options) -> None:
    """Read, show, bring in; exit code 1 where somebody has to decide."""
    with failing_in_one_line(), Client(timeout_s=TIMEOUT_S) as client:
        try:
            reader = source.reader()
            trials = getattr(reader, "trials", None) if source.with_trials else None
            running = Running(client, reader, dry_run=options.dry_run)
            summary = _with_progress(running, options.only, trials, quiet=options.as_json)
        except SourceFailed as error:
            raise ValueError(str(error)) from None
    if options.as_json:
        show_json(_document(summary, options.dry_run))
    else:
        _show(summary, options.dry_run)
    if summary.in_the_way:
        raise typer.Exit(UNDECIDED)


def _with_progress(
    running: Running, only: list[str] | None, trials: Callable[..., Iterator[Trials]] | None, *, quiet: bool
) -> Summary:
    def wanted(title: str) -> bool:
        return not only or any(fnmatchcase(title, pattern) for pattern in only)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=hints, transient=True, disable=quiet) as progress:
        task = progress.add_task("reading", total=None)

        def tell(title: str) -> None:
            progress.update(task, description=title[:40], total=running.count(), advance=1)

        summary = running.run(wanted, tell)
        if trials is not None:
            task = progress.add_task("runs", total=None)
            running.run_trials(trials(every=not only), lambda title: progress.advance(task))
        return summary


def _document(summary: Summary, dry_run: bool) -> dict[str, Any]:
    rows = [
        {
            "title": row.title,
            "urn": row.urn,
            "version": row.version,
            "outcome": row.outcome,
            "differences": row.differences,
            "reason": row.reason,
        }
        for row in summary.rows
    ]
    return {
        "dry_run": dry_run,
        "assets": dict(summary.assets),
        "versions": dict(summary.versions),
        "runs": dict(summary.trials),
        "rows": rows,
    }


def _show(summary: Summary, dry_run: bool) -> None:
    """The diff line by line where it is asked for or in the way, then a table of counts."""
    for row in summary.rows:
        if dry_run or row.in_the_way:
            where = row.title if row.version is None else f"{row.title} version {row.version}"
            out.print(f"{row.outcome:9} {where}" + (f": {row.reason}" if row.reason else ""), markup=False)
            for one in row.differences:
                why_not = f"   stays: {one['why_not']}" if one["why_not"] else ""
                change = f"{_shown(one['before'])} → {_shown(one['after'])}"
                out.print(f"            {one['field']}: {change}{why_not}", markup=False)
    order = ("created", "changed", "same", "conflict", "refused")
    counts = {"assets": summary.assets, "versions": summary.versions}
    if summary.trials:
        counts["runs and logged models"] = summary.trials
    show_table(
        [{"": name, **{outcome: counted[outcome] for outcome in order}} for name, counted in counts.items()],
        ["", *order],
    )
    if dry_run:
        hints.print("a dry run: nothing was changed")
    if summary.in_the_way:
        hints.print(f"{summary.in_the_way} need a decision", style="red")


def _shown(value: str | None) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
