"""`flowdex eval` and `flowdex compare`: how well a flow finds, over a collection with judgements.

DATASET_DIR --load_dataset--> Dataset --evaluate, on --url or on a flow of its own (--flow)--> table | JSON, plot, runs
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flowdex.cli import complete
from flowdex.cli.common import console, json_option, print_json
from flowdex.cli.main import Settings

if TYPE_CHECKING:
    from flowdex.client import Client
    from flowdex.evaluation.dataset import Dataset
    from flowdex.evaluation.experiment import Evaluation, Options

__all__ = ["compare", "evaluate"]

F = TypeVar("F", bound=Callable[..., Any])

_FLOW_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_DATASET = click.argument("dataset", type=click.Path(path_type=Path), metavar="DATASET_DIR")


_TIMEOUT = click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Time for a request.",
)


def _json_object(ctx: click.Context, param: click.Parameter, value: str | None) -> dict[str, Any]:
    try:
        parsed = json.loads(value or "{}")
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise click.BadParameter("must be a JSON object, such as '{\"candidates\": 200}'")
    return parsed


def _experiment_options(command: F) -> F:
    """The options that say what is measured."""
    options = [
        click.option(
            "--mode",
            "modes",
            multiple=True,
            type=click.Choice(["dense", "sparse", "hybrid"]),
            help="How to search; repeatable.  [default: all three]",
        ),
        click.option(
            "--rerank",
            "rerankers",
            multiple=True,
            metavar="NAME",
            help="Measure each mode also with this reranker, such as late_interaction, or, with options, "
            '\'{"method": "late_interaction", "top": 20}\'. Repeatable.',
        ),
        click.option(
            "--metric",
            "metrics",
            multiple=True,
            metavar="NAME@K",
            help="ndcg, recall, precision, map, mrr or success; repeatable.  "
            "[default: ndcg@10, recall@10, recall@100, mrr@10]",
        ),
        click.option(
            "--split", metavar="SPLIT", help="Which judgements: qrels/SPLIT.tsv.  [default: test, or the only ones]"
        ),
        click.option("--queries", metavar="N", type=click.IntRange(1), help="Only the first N judged queries."),
        click.option(
            "--limit",
            metavar="N",
            type=click.IntRange(1),
            help="Hits of a query.  [default: as many as the metrics look at]",
        ),
        click.option(
            "--segment",
            metavar="HOW",
            help="How documents are cut: document, passage, sentence or markdown.  [default: as the flow says]",
        ),
        click.option("--parameters", metavar="JSON", callback=_json_object, help="Further parameters of the searches."),
        click.option(
            "--batch-size",
            metavar="N",
            type=click.IntRange(1),
            default=64,
            show_default=True,
            help="Documents in a request.",
        ),
        click.option(
            "--concurrency",
            metavar="N",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Queries in flight.",
        ),
        click.option(
            "--ignore-identical-ids",
            is_flag=True,
            help="Leave hits with the query's own id out: for collections whose queries are documents.",
        ),
        click.option(
            "--plot",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE.png",
            help="Draw the figures to this file.",
        ),
        json_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command("eval")
@_DATASET
@click.option(
    "--flow",
    type=_FLOW_FILE,
    metavar="FLOW.YML",
    shell_complete=complete.flow_files,
    help="Start this flow for the command, with an index of its own, beside any other run of it.",
)
@click.option(
    "-u",
    "--url",
    metavar="URL",
    shell_complete=complete.addresses,
    help="The running flow's gateway; also FLOWDEX_URL.",
)
@click.option("--index/--no-index", default=True, help="Index the collection first.  [default: index]")
@_experiment_options
@click.option(
    "--run",
    "run_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the rankings for trec_eval; of several runs each to a file with its name before the ending.",
)
@_TIMEOUT
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    *,
    dataset: Path,
    flow: Path | None,
    url: str | None,
    index: bool,
    plot: Path | None,
    run_file: Path | None,
    as_json: bool,
    timeout: float,
    **what: Any,
) -> None:
    """Measure how well a flow finds: index a collection, search its judged queries, compare with the judgements.

    DATASET_DIR is in BEIR's layout: corpus.jsonl, queries.jsonl and qrels/test.tsv. The collection goes into the index
    of the running flow (--url), or into one of its own (--flow).

    \b
    Example:
      flowdex eval scifact/ --flow flow.yml
      flowdex eval scifact/ --flow flow.yml --mode hybrid --rerank late_interaction --plot scifact.png
      flowdex eval scifact/ --no-index --json
    """  # noqa: D301 - click's mark for lines to keep
    if flow is not None and (url is not None or not index):
        raise click.UsageError(f"--flow starts with an empty index, so {'--url' if url else '--no-index'} cannot hold.")
    collection, options = _prepare(dataset, plot, index=index, **what)
    if flow is not None:
        with _own_flow(ctx, flow, timeout) as client:
            evaluation = _evaluate(client, collection, options)
    else:
        with _client(ctx, url, timeout) as client:
            evaluation = _evaluate(client, collection, options)
    if run_file is not None:
        _write_runs(evaluation, run_file)
    if plot is not None:
        _draw({run.setting.label: run for run in evaluation.runs}, plot, f"{collection.name}, {evaluation.flow}")
    if as_json:
        print_json(evaluation.to_dict())
        return
    from flowdex.evaluation.report import evaluation_table, summary

    out = console()
    out.print(evaluation_table(evaluation))
    out.print()
    for line in summary(evaluation):
        out.print(line, soft_wrap=True)


@click.command()
@click.argument("first", type=_FLOW_FILE, metavar="FLOW_A.YML", shell_complete=complete.flow_files)
@click.argument("second", type=_FLOW_FILE, metavar="FLOW_B.YML", shell_complete=complete.flow_files)
@_DATASET
@_experiment_options
@_TIMEOUT
@click.pass_context
def compare(
    ctx: click.Context,
    /,
    *,
    first: Path,
    second: Path,
    dataset: Path,
    plot: Path | None,
    as_json: bool,
    timeout: float,
    **what: Any,
) -> None:
    """Put two flows side by side over one collection, such as two encoders.

    Each is started in turn, with an index of its own, and measured as `flowdex eval` does. p is that of the paired
    randomisation test over the queries: how likely a difference as large is between systems that are alike.

    \b
    Example:
      flowdex compare flow.yml flows/glove.yml scifact/
      flowdex compare flow.yml my-flow.yml scifact/ --mode dense --metric ndcg@10 --plot both.png
    """  # noqa: D301 - click's mark for lines to keep
    from flowdex.evaluation.metrics import optional_import

    collection, options = _prepare(dataset, plot, **what)
    optional_import("scipy.stats")
    evaluations = []
    for flow, name in zip((first, second), _names(first, second), strict=True):
        with _own_flow(ctx, flow, timeout) as client:
            evaluations.append(_evaluate(client, collection, options, name))
    from flowdex.evaluation import report

    comparison = report.compare(*evaluations)
    if plot is not None:
        runs = {f"{each.flow}: {run.setting.label}": run for each in evaluations for run in each.runs}
        _draw(runs, plot, collection.name)
    if as_json:
        print_json(comparison.to_dict())
        return
    out = console()
    out.print(report.comparison_table(comparison))
    out.print()
    for evaluation in evaluations:
        lines = report.summary(evaluation)
        out.print(f"{evaluation.flow}: {lines[0]}", soft_wrap=True)
        for line in lines[1:]:
            out.print(line, soft_wrap=True)


# ---- what both do ----


def _prepare(
    folder: Path,
    plot: Path | None,
    *,
    modes: tuple[str, ...],
    rerankers: tuple[str, ...],
    metrics: tuple[str, ...],
    split: str | None,
    queries: int | None,
    segment: str | None,
    parameters: dict[str, Any],
    index: bool = True,
    **plain: Any,
) -> tuple[Dataset, Options]:
    """Read the collection and the options, and find out what is missing before anything takes long."""
    from flowdex.evaluation.dataset import load_dataset
    from flowdex.evaluation.experiment import MODES, Options, Setting, read_rerank
    from flowdex.evaluation.metrics import DEFAULT_METRICS, Metric, optional_import

    optional_import("pytrec_eval")
    if plot is not None:
        from flowdex.evaluation.plot import check_plot

        check_plot(plot)
    chosen = [mode for mode in MODES if not modes or mode in modes]
    options = Options(
        settings=Setting.product(chosen, [read_rerank(text) for text in rerankers]),
        metrics=[Metric.parse(text) for text in dict.fromkeys(metrics)] or DEFAULT_METRICS,
        index=index,
        index_parameters={"segment": segment} if segment is not None else {},
        search_parameters=parameters,
        **plain,
    )
    return load_dataset(folder, split=split, queries=queries, with_corpus=index), options


def _evaluate(client: Client, collection: Dataset, options: Options, name: str = "") -> Evaluation:
    from flowdex.evaluation.experiment import evaluate

    return evaluate(client, collection, options, flow=name)


def _client(ctx: click.Context, url: str | None, timeout: float) -> Client:
    from flowdex.client import Client

    settings = ctx.obj if isinstance(ctx.obj, Settings) else Settings()
    return Client(url or settings.url, api_key=settings.api_key, timeout=timeout)


@contextmanager
def _own_flow(ctx: click.Context, flow: Path, timeout: float) -> Iterator[Client]:
    """A client of a flow that runs for the block, with an index of its own."""
    from flowdex_orchestrator.runner.temporary import flow_of_its_own

    with flow_of_its_own(flow) as url, _client(ctx, url, timeout) as client:
        yield client


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Short names of two flow files that tell them apart."""
    for names in ((first.stem, second.stem), (first.absolute().parent.name, second.absolute().parent.name)):
        if names[0] != names[1]:
            return names
    return str(first), str(second)


def _write_runs(evaluation: Evaluation, path: Path) -> None:
    from flowdex.evaluation.trec import run_files, write_run

    tags = [run.setting.tag for run in evaluation.runs]
    for file, tag, run in zip(run_files(path, tags), tags, evaluation.runs, strict=True):
        write_run(file, run.rankings, tag)


def _draw(runs: dict[str, Any], path: Path, title: str) -> None:
    from flowdex.evaluation.plot import draw

    draw(runs, path, title=title)
