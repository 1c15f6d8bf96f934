"""Joins the tables of all stages and seeds into reports/: the report, pictures, plots, metrics."""

import shutil
from pathlib import Path

from stages.lib.analysis import committed, exports, findings, metrics
from stages.lib.core import outputs, paths
from stages.lib.core.stage import Stage, run_stage
from stages.lib.report import figures, html, markdown, reading, terminal
from stages.lib.report.run import Run

# The stages whose tables are handed over, besides those that make networks.
JOINED = ("dtype_bench", "latency_bench", "package")


def copy_tables(sources: list[Path], run: Run, target: Path) -> None:
    """Copies every table of the run into folders by stage and seed, with what it was made with."""
    for source in sources:
        folder = target / source.relative_to(paths.ARTIFACTS)
        folder.mkdir(parents=True)
        for file in sorted(source.glob(paths.TABLES)):
            shutil.copyfile(file, folder / file.name)
    about = committed.Manifest(
        seeds=run.seeds, model=run.params["model"], data=run.meta, hardware=run.hardware
    )
    outputs.write_json(target / paths.MANIFEST, about.model_dump())


def main(stage: Stage) -> None:
    places = reading.Places(paths.stage_directory, paths.PREPARED, paths.HARDWARE)
    run, evidence = reading.read(places, stage.params)
    found, drawn = findings.judge(evidence), figures.build(run)
    text = markdown.render(run, found, drawn, paths.FIGURES.name)
    outputs.write_text(stage.place(paths.REPORT_MARKDOWN), text)
    outputs.write_text(stage.place(paths.REPORT_PAGE), html.render(run, found, drawn))
    figures.save(list(drawn.values()), stage.place(paths.FIGURES))
    plots = exports.plots(run.rows, run.layers, run.curves, run.selection)
    exports.save(plots, stage.place(paths.PLOTS))
    sources = [*places.folders(run.seeds), *map(paths.stage_directory, JOINED)]
    copy_tables(sources, run, stage.place(paths.RUNS))
    outputs.write_json(stage.place(paths.FINDINGS), findings.to_json(found, run.context))
    numbers = metrics.named(run.rows, run.sparsity, run.max_drop)
    numbers |= {"packed": metrics.packed(run.rows), "deploy": metrics.deployed(run.selection)}
    outputs.write_json(stage.place(paths.METRICS), numbers)
    stage.closing = terminal.closing(run.selection, paths.DEPLOY, paths.REPORT_PAGE)


if __name__ == "__main__":
    run_stage(main)
