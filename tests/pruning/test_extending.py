"""What docs/extending.md says is typed into a copy of the repository: the new method is there."""

import re

import pytest
import yaml

from stages.lib.core import paths, records
from tests import documents
from tests.conftest import TINY, Repository

PAGE = documents.ROOT / "docs/extending.md"
TITLES = {
    "taylor_global": "Taylor, global",
    "taylor_global_finetune": "Taylor, global + fine-tuning",
}


def type_in(block: documents.Block, repository: Repository) -> None:
    """Does what a block's first line says: writes a file, or adds lines after a method's."""
    if block.language == "yaml":
        for section, values in yaml.safe_load(block.text).items():
            for key, value in values.items():
                repository.change(f"{section}.{key}", value)
        return
    place, _, code = block.text.partition("\n")
    name, after = re.fullmatch(r"# ([\w/.]+)(?:, after (\w+))?", place).groups()
    file = repository.path / name
    if after:
        text = file.read_text(encoding="utf-8")
        end = text.index("    Method(", text.index(f'    Method("{after}",') + 1)
        code = text[:end] + code + text[end:]
    file.write_text(code, encoding="utf-8")


@pytest.fixture(scope="module")
def extended(tiny, tmp_path_factory):
    """The stages that ran before are as they were: the methods come with `controls`."""
    repository = tiny.copy(tmp_path_factory.mktemp("extended") / "repository")
    for block in documents.blocks(PAGE):
        type_in(block, repository)
    repository.stages("controls", "package", "report")
    return repository


def test_a_new_criterion_prunes_and_trains_in_stage_controls(extended):
    rows = records.read(extended.path / paths.stage_directory("controls", 0) / paths.ROWS)
    for method in TITLES:
        found = [row for row in rows if row.method == method]
        assert [row.target_sparsity for row in found] == TINY["sparsities"]
        assert all(row.sparsity == pytest.approx(row.target_sparsity, abs=1e-3) for row in found)


def test_the_new_methods_are_in_tables_chart_and_page(extended):
    reports = extended.path / "reports"
    report, page = (
        (reports / name).read_text(encoding="utf-8") for name in ("report.md", "index.html")
    )
    for name, title in TITLES.items():
        assert f"| {title} " in report
        assert title in page
        points = (reports / f"plots/{name}.csv").read_text(encoding="utf-8").splitlines()
        assert len(points) == 1 + len(TINY["sparsities"])


def test_the_files_that_the_page_names_are_there():
    for name in re.findall(r"`([\w/*]+\.py)`", PAGE.read_text(encoding="utf-8")):
        roots = (documents.ROOT, documents.ROOT / "stages/lib")
        assert name == "stages/NAME.py" or any(list(root.glob(name)) for root in roots), name
