"""`limbeck generate`: prompts answered, answers judged, rows to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.run import Overrides, Recipe

if TYPE_CHECKING:
    from rich.table import Table

    from limbeck.core.recipe import Recipe as Loaded

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it will cost, and ask nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Judge again; answers that were paid for are not asked again.")]
BatchOut = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Write the requests as OpenAI Batch JSONL, and ask nothing.", show_default=False
    ),
]
BatchIn = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Take the results of a batch in, and ask nothing.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: limbeck generate mine.yaml --dry-run  ·  limbeck generate mine.yaml generate.samples=8  ·  "
        "limbeck generate mine.yaml --batch-out batch/  ·  limbeck generate mine.yaml --batch-in results.jsonl"
    )(generate)


def generate(
    recipe: Recipe,
    overrides: Overrides = None,
    dry_run: DryRun = False,
    force: Force = False,
    batch_out: BatchOut = None,
    batch_in: BatchIn = None,
) -> None:
    """Have the teacher answer prompts or write new inputs, and keep what is right.

    Answers are kept in the run's ledger: one that was paid for is never asked again, also after a kill. The steps
    before it are done first if need be.
    """
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.errors import RecipeError
    from limbeck.core.recipe import load_recipe

    if sum((dry_run, batch_out is not None, batch_in is not None)) > 1:
        raise RecipeError("only one of --dry-run, --batch-out and --batch-in can be done at a time")
    loaded = load_recipe(recipe, overrides or [])  # before the libraries, so that a mistake is told at once
    if not loaded.generate:
        raise RecipeError(f"{recipe} has no `generate` section", fix="generate: {samples: 4}")
    quiet_libraries()
    if dry_run:
        _show_plan(loaded)
    elif batch_out is not None:
        _write(loaded, batch_out)
    elif batch_in is not None:
        _read(loaded, batch_in)
    else:
        _run(loaded, force)


def _show_plan(recipe: Loaded) -> None:
    from rich.console import Console

    from limbeck.pipeline.plan import plan

    planned = plan(recipe)
    out = Console(highlight=False, markup=False, emoji=False)
    table = _table("data stage", "requests", "answered", "", "prompt tokens", "answer tokens", "cost")
    for each in planned:
        seen = each.estimate
        first = [each.stage, f"{seen.requests:,}", f"{seen.done + seen.quarantined:,}"]
        for row in seen.rows():
            cost = "-" if each.currency is None else f"{row['cost']} {each.currency}"
            table.add_row(*first, row[""], row["prompt tokens"], row["answer tokens"], cost)
            first = ["", "", ""]
    out.print(table)
    for each in planned:
        if not each.estimate.fits:
            out.print(f"{each.stage}: the budget may not hold all; what it does not hold stays unanswered")


def _write(recipe: Loaded, folder: Path) -> None:
    from limbeck.pipeline.plan import write_batches

    paths = write_batches(recipe, folder)
    for path in paths:
        typer.echo(path)
    if not paths:
        typer.echo("every answer is in the ledger; next: limbeck generate without --batch-out", err=True)


def _read(recipe: Loaded, path: Path) -> None:
    from limbeck.pipeline.plan import read_batches

    counts = read_batches(recipe, path)
    for reason, count in sorted(counts.items()):
        typer.echo(f"{reason}  {count:,}")


def _run(recipe: Loaded, force: bool) -> None:
    from rich.console import Console

    from limbeck.core.artifacts import read_manifest
    from limbeck.core.progress import is_main_process
    from limbeck.pipeline.run import run_recipe

    result = run_recipe(recipe, until="generate", force=force)
    if not is_main_process():
        return
    folder = result.output / "generate"
    table = _table("data stage", "answers", "pass@k", "rows", "dropped", "tokens", "cost")
    for name, told in read_manifest(folder)["stages"].items():
        spent = told["spent"]
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in told["dropped"].items())
        lost = told["possibly_spent"]
        tokens = f"{spent['prompt_tokens'] + spent['completion_tokens']:,}"
        cost = f"{spent['cost']:,.4f} {spent['currency']}" if "cost" in spent else "-"
        if perhaps := lost["prompt_tokens"] + lost["completion_tokens"]:
            tokens += f", possibly {perhaps:,} more"
            cost += f", possibly {lost['cost']:,.4f} more" if lost.get("cost") else ""
        passed = ", ".join(f"@{k} {share:.1%}" for k, share in told["pass_at"].items())
        table.add_row(name, f"{told['answers']:,}", passed or "-", f"{told['rows']:,}", dropped or "-", tokens, cost)
    Console(highlight=False, markup=False, emoji=False).print(table)
    typer.echo(f"rows     {folder / 'rows.parquet'}\ndropped  {folder / 'dropped.parquet'}")


def _table(*titles: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in titles:
        left = title in ("data stage", "", "dropped")
        table.add_column(title, justify="left" if left else "right", overflow="fold")
    return table
