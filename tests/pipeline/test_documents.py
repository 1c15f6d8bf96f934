"""What a page tells people to type, a test types; and every params file is one."""

import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import networkx
import numpy as np
import pytest
import yaml
from dvc.repo import Repo
from PIL import Image
from safetensors.numpy import load_file

from stages.lib.core import params, paths, records
from tests import documents
from tests import test_house as house
from tests.conftest import ALWAYS, ROOT, Repository, params_with
from tests.pruning import test_extending

REFERENCE = yaml.safe_load(
    (ROOT / "reports/reference/cifar10/params.yaml").read_text(encoding="utf-8")
)
# What takes long is rehearsed: DVC takes the params or says what it would run, and the params are
# validated, with the files that they name. Installs are checked against what is installed here.
# .ci/run types `pytest`, and tests/benchmarks the benchmarks.
REHEARSED = """
pip() { python -m pip --quiet "$@" --dry-run --no-deps --no-index; }
pytest() { for file; do test -e "$file"; done; }
python() {
    case "$2" in
    tests.benchmarks.*) test -e "${2//.//}.py" ;;
    *) command python "$@" ;;
    esac
}
dvc() {
    case "$1 $2" in
    "repro "*) command dvc "$@" --dry ;;
    "exp run")
        python -c "import sys; from dvc.utils.hydra import apply_overrides
apply_overrides('params.yaml', sys.argv[2::2])" "${@:3}" ;;
    *) command dvc "$@" ;;
    esac
    git diff --quiet params.yaml || { python -m stages.probe && git checkout -q params.yaml; }
}
"""
# In front of a program: what imports torch or this repository, itself or through others, fails.
ALONE = """
import sys
class Refuse:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "stages"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse)
"""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def arrows(diagram: str) -> set[tuple[str, str]]:
    """Who is reached from where in a Mermaid flowchart, directly or not."""
    graph = networkx.DiGraph()
    for line in diagram.splitlines():
        groups = [re.findall(r"\w+", group) for group in line.split("-->")]
        for starts, ends in itertools.pairwise(groups):
            graph.add_edges_from((start, end) for start in starts for end in ends)
    return set(networkx.transitive_closure(graph).edges)


def drawn() -> dict[str, set[tuple[str, str]]]:
    """What a flowchart may show: from the bottom the imports, from the top the stages."""
    imports = {(name, other) for name, others in house.MAY_IMPORT.items() for other in others}
    plain = re.compile(r"^.*:|@.*$")
    stages = {
        (plain.sub("", before.addressing), plain.sub("", after.addressing))
        for after, before in Repo().index.graph.edges
    }
    return {
        kind: set(networkx.transitive_closure(networkx.DiGraph(edges)).edges)
        for kind, edges in (("flowchart BT", imports), ("flowchart TD", stages))
    }


def write_images(folder: Path, count: int) -> None:
    """A folder of two classes, of so many images each."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / label / f"{number}.png")


def predictions_of(repository: Repository, deployed: Path) -> np.ndarray:
    """What the stage that made a deployed file predicted for the test images."""
    (rows_file, row), *_ = (
        (file, row)
        for file in repository.path.glob("artifacts/*/seed-0/rows.csv")
        for row in records.read(file)
        if row.model and (repository.path / row.model).read_bytes() == deployed.read_bytes()
    )
    return load_file(rows_file.with_name(paths.PREDICTIONS))[Path(row.model).stem]


def type_block(repository: Repository, block: documents.Block) -> None:
    """Types a block. A program that begins with a path in a comment is a file to be written."""
    if block.language == "yaml":
        params.validate(params_with(yaml.safe_load(block.text)))
    elif block.language == "mermaid":
        kind, _, rest = block.text.partition("\n")
        assert arrows(rest) == drawn()[kind], block.place
    elif file := re.match(r"# (\S+/\S+\.py)\n", block.text):
        (repository.path / file[1]).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / file[1]).write_text(block.text, encoding="utf-8")
    else:
        if block.language == "sh":
            command = ["bash", "-e", "-c", REHEARSED + block.text]
        else:
            alone = ALONE if re.search("import predict|openvino", block.text) else ""
            command = [sys.executable, "-c", alone + block.text]
        done = repository.run(*command, HOME=str(repository.path / "home"))
        assert done.returncode == 0, f"{block.place}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
        for file in re.findall(r"artifacts/deploy/\w+\.(?:onnx|packed)", block.text):
            said = [int(digit) for digit in re.findall(r"\d+", done.stdout)]
            expected = predictions_of(repository, repository.path / file)
            assert said == expected[:8].tolist(), block.place


@pytest.fixture(scope="module")
def reader(tiny, tmp_path_factory) -> Repository:
    """A copy of the tiny repository with all files that the pages name."""
    repository = tiny.copy(tmp_path_factory.mktemp("reader") / "repository")
    here = repository.path
    for name in ("docs", "params", "tests", "reports/reference"):
        shutil.copytree(ROOT / name, here / name)
    for file in ROOT.glob("requirements-*.txt"):
        shutil.copy(file, here)
    texts = "".join(page.read_text(encoding="utf-8") for page in documents.PAGES)
    for folder in {*re.findall(r"\$HOME/(\w+)", texts)}:
        write_images(here / "home" / folder, 1)
    for part in ("train", "test"):
        write_images(here / REFERENCE["data"]["root"] / part, 1)
    packed, *_ = sorted(here.glob("artifacts/compress/seed-0/*.packed"))
    os.link(packed, here / "FILE")
    fastest = here / "artifacts/deploy/fastest.onnx"
    if not fastest.exists():  # no latency was steady enough: this machine is busy
        shutil.copy(min(here.glob("artifacts/export_onnx/seed-0/*.onnx")), fastest)
    return repository


@pytest.mark.parametrize(
    "page", [page for page in documents.PAGES if page != test_extending.PAGE], ids=name_of
)
def test_what_a_page_tells_to_type_works(reader, monkeypatch, page):
    """All blocks of a page, one after the other, where the files are that they name."""
    monkeypatch.chdir(reader.path)
    for block in documents.blocks(page):
        if not block.marked:
            assert block.language in documents.TYPED, block.place
            type_block(reader, block)


# What runs them: the tiny repository, test_photos.py and the test below.
PARAMS_FILES = ("params.yaml", "params/photos.yaml", "reports/reference/cifar10/params.yaml")


def test_every_params_file_is_run_by_a_test():
    files = {*ROOT.rglob("params*.yaml"), *ROOT.glob("params/*.yaml")}
    assert {name_of(file) for file in files} == set(PARAMS_FILES)


@pytest.mark.parametrize("file", [ROOT / name for name in PARAMS_FILES], ids=name_of)
def test_every_params_file_is_valid(file):
    params.validate(params.parse(file.read_text(encoding="utf-8")))


def test_the_reference_runs_from_here(tmp_path):
    """Its first stages, with few images and one epoch."""
    reduced = {"data": {"validation_images": 4}, "train_baseline": {"epochs": 1}}
    values = {name: REFERENCE[name] | reduced.get(name, {}) for name in ("data", "train_baseline")}
    repository = Repository(tmp_path / "reference", REFERENCE | values)
    for part in ("train", "test"):
        write_images(repository.path / REFERENCE["data"]["root"] / part, 10)
    assert repository.repro("train_baseline") == ALWAYS | {"prepare_data", "train_baseline@0"}
