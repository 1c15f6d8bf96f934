"""What docs/extending.md says is typed into a copy of the repository: the new method is there."""

import re
import sys

import pytest
import yaml
from conftest import TINY, Repository

from stages.lib.core import paths, records
from tests import documents

PAGE = documents.ROOT / "docs/extending.md"
# In one process: three take three times as long.
STAGES = """
from stages import controls, prepare_data, train_baseline
from stages.lib.core.stage import run_stage
from stages.lib.evaluation.context import Context

run_stage(prepare_data.main, name="prepare_data", argv=[])
run_stage(train_baseline.main, Context, name="train_baseline", argv=["--seed", "0"])
run_stage(controls.main, Context, name="controls", argv=["--seed", "0"])
"""
METHODS = ("taylor_global", "taylor_global_finetune")


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
def extended(tmp_path_factory):
    repository = Repository(tmp_path_factory.mktemp("extended"), TINY)
    for block in documents.blocks(PAGE):
        type_in(block, repository)
    done = repository.run(sys.executable, "-c", STAGES)
    assert done.returncode == 0, done.stderr
    return repository


def test_a_new_criterion_prunes_and_trains_in_stage_controls(extended):
    rows = records.read(extended.path / paths.stage_directory("controls", 0) / paths.ROWS)
    for method in METHODS:
        found = [row for row in rows if row.method == method]
        assert [row.target_sparsity for row in found] == TINY["sparsities"]
        assert all(row.sparsity == pytest.approx(row.target_sparsity, abs=1e-3) for row in found)


def test_the_files_that_the_page_names_are_there():
    for name in re.findall(r"`([\w/*]+\.py)`", PAGE.read_text(encoding="utf-8")):
        roots = (documents.ROOT, documents.ROOT / "stages/lib")
        assert name == "stages/NAME.py" or any(list(root.glob(name)) for root in roots), name
