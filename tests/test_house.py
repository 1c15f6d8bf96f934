"""The rules of the house (DESIGN.md, section 2), each kept by a test."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from stages.lib import modules, params, paths

ROOT = Path(__file__).resolve().parent.parent
STAGES = sorted(path for path in (ROOT / "stages").glob("*.py") if path.name != "__init__.py")
LIBRARY = sorted(path for path in (ROOT / "stages/lib").glob("*.py") if path.name != "__init__.py")
TOOLS = sorted(path for path in (ROOT / "stages/tools").glob("*.py") if path.name != "__init__.py")
CODE = [*STAGES, *LIBRARY, *TOOLS]

# Downward only: a module imports from its own layer or from those above it in this list.
LAYERS = (
    (
        "errors", "paths", "hardware", "rules", "catalogue", "own", "resizing", "statistics",
        "verdicts", "entropy", "container", "calibration", "compiled", "onnx_runtime",
        "normalization", "short_floats", "modules",
    ),
    ("params", "outputs", "entropy_coding"),
    ("cli", "records", "listing", "rows"),
    ("fingerprint", "decoding", "image_folder", "torchvision_sets", "splits", "prepared", "images"),
    ("staging",),
    ("sources",),
    ("device", "convnet", "resnet", "families"),
    ("models", "weights", "checkpoints"),
    ("skeletons", "packed_layout"),
    ("evaluation", "masks", "counting", "tradeoff", "replay"),
    ("norms", "sensitivity", "difference"),
    ("channels", "removal"),
    ("measuring", "training", "structured", "quantization", "latency", "formats"),
    ("packed_metadata", "least_error", "distillation"),
    ("allocation", "compaction"),
    ("compression",),
    ("packed",),
    ("packed_summary",),
    (
        "setting", "results", "recovery", "onnx_run", "onnx_export", "onnx_pixels", "onnx_int8",
        "onnx_files", "engines",
    ),
    ("size_targets",),
    ("storing", "timings"),
    ("tables", "predictions", "manifest", "unpaired", "frontier"),
    ("stage_tables",),
    ("evidence", "headlines", "committed", "candidates", "ladder", "charts", "deployable"),
    ("claims", "accuracy_charts", "quantization_charts", "model_card"),
    ("accuracy_claims", "format_claims", "error_claims", "report_tables", "cost_charts"),
    ("findings", "exports", "comparing", "deployment_tables"),
    ("deployment_charts",),
    ("comparison_text", "page"),
    ("views",),
    ("deployment_figures",),
    ("figures",),
    ("website",),
)  # fmt: skip


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[Path]:
    """The project's own modules that a module imports."""
    found = set()
    for node in ast.walk(tree(path)):
        modules = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            file = ROOT / (module.replace(".", "/") + ".py")
            if module.startswith("stages") and file.exists():
                found.add(file)
    return frozenset(found)


def closure(path: Path) -> set[Path]:
    """All modules of the project that running this one reads, itself included."""
    reached, waiting = set(), [path]
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += imports(module)
    return reached


def pipeline() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def keyword(stage: Path, name: str):
    """A keyword of the script's call of run_stage, evaluated; None where it is not given."""
    calls = [
        node
        for node in ast.walk(tree(stage))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run_stage"
    ]
    assert len(calls) == 1
    values = {entry.arg: ast.literal_eval(entry.value) for entry in calls[0].keywords}
    return values.get(name)


SCRIPTS = [*STAGES, *TOOLS]


@pytest.mark.parametrize("script", SCRIPTS, ids=names(SCRIPTS))
def test_a_stage_or_a_tool_imports_the_library_and_no_other(script):
    assert all(module.parent.name == "lib" for module in imports(script))


@pytest.mark.parametrize("module", LIBRARY, ids=names(LIBRARY))
def test_the_library_imports_downward(module):
    layer = {name: number for number, group in enumerate(LAYERS) for name in group}
    assert module.stem in layer, f"give {module.stem} a place in LAYERS"
    upward = [one.stem for one in imports(module) if layer[one.stem] > layer[module.stem]]
    assert not upward


def test_no_module_of_the_library_is_left_over():
    used = set().union(*(closure(script) for script in SCRIPTS))
    assert set(LIBRARY) <= used


def test_one_module_loads_onnx_runtime_without_its_telemetry():
    first = re.compile(r"^(import|from) onnxruntime", re.MULTILINE)
    loaders = [path.name for path in CODE if first.search(path.read_text(encoding="utf-8"))]
    assert loaders == ["onnx_runtime.py"]


def attributes_of(path: Path, module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == module
    }


def test_one_module_reads_the_params_file():
    readers = [path.name for path in CODE if "PARAMS" in attributes_of(path, "paths")]
    assert readers == ["params.py"]


def docstrings(path: Path) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_path_literals_stand_in_one_module(path):
    ending = re.compile(
        r"\.(csv|json|ya?ml|md|safetensors|onnx|npy|svg|txt|html|css|js)$"
        r"|^(data|artifacts|reports)/"
    )
    skip = docstrings(path)
    literals = [
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skip
        and " " not in node.value
        and ending.search(node.value)
    ]
    assert path.name == "paths.py" or not literals


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_only_stage_scripts_know_the_places_of_results(path):
    places = {
        "ARTIFACTS", "REPORTS", "PREPARED", "HARDWARE", "DEPLOY", "INPUT_DATA", "INPUT_MODEL",
        "REPORT_PAGE", "REPORT_SITE", "METRICS", "FINDINGS", "FIGURES", "PLOTS", "RUNS", "CODE",
        "stage_directory", "baseline", "reported", "code_of",
    }  # fmt: skip
    assert not places & attributes_of(path, "paths")


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_nothing_is_pickled(path):
    source = path.read_text(encoding="utf-8")
    # Where the user's weights are read, torch unpickles tensors and nothing else.
    source = re.sub(r"torch\.load\([^()]*weights_only=True\)", "", source)
    assert not re.search(r"torch\.(save|load)\(|import pickle|allow_pickle=True", source)


@pytest.mark.parametrize("name", [path.stem for path in STAGES])
def test_a_stage_depends_on_the_modules_that_it_is_made_of(name):
    stage = pipeline()[name]
    assert {"requirements.txt", f"stages/{name}.py"} <= set(stage["deps"])
    # A probe runs always.
    assert (str(paths.code_of(name)) in stage["deps"]) != stage.get("always_changed", False)
    program = ROOT / f"stages/{name}.py"
    assert set(modules.fingerprint(program, ROOT)) == set(names(closure(program)))


def test_the_report_depends_on_what_the_page_is_made_of():
    beside = {str(path.relative_to(ROOT)) for path in (ROOT / "stages/lib").glob("website.[!p]*")}
    assert beside <= set(pipeline()["report"]["deps"])
    assert len(beside) == 3


@pytest.mark.parametrize("name", [path.stem for path in STAGES])
def test_the_pipeline_lists_every_section_that_a_stage_reads(name):
    script = ROOT / f"stages/{name}.py"
    read = set(keyword(script, "reads"))
    assert set(pipeline()[name].get("params", [])) == read
    assert attributes_of(script, "params") <= read, "a section that run_stage was not asked for"
    assert read <= set(params.SECTIONS)


@pytest.mark.parametrize("name", [path.stem for path in STAGES])
def test_per_seed_stages_are_a_matrix_over_the_seeds(name):
    per_seed = bool(keyword(ROOT / f"stages/{name}.py", "per_seed"))
    # The formats are benched for the first seed alone, so that another seed does not touch them.
    first = name == "dtype_bench"
    assert pipeline()[name].get("matrix") == (
        {"seed": "${seeds}"} if per_seed and not first else None
    )
    seed = "${seeds[0]}" if first else "${item.seed}"
    assert pipeline()[name]["cmd"] == f"python -m stages.{name}" + per_seed * f" --seed {seed}"


def test_every_stage_of_the_pipeline_is_a_script_and_the_reverse():
    assert set(pipeline()) == {path.stem for path in STAGES}


def test_every_section_is_read_by_some_stage():
    read = set().union(*(keyword(stage, "reads") for stage in STAGES)) | {"seeds"}
    assert read == set(params.SECTIONS)


@pytest.mark.parametrize(
    "name", ["report", "package", "probe_code", "probe_hardware", "probe_inputs", "tools.compare"]
)
def test_stages_without_networks_do_not_import_torch(name):
    program = (
        f"import sys, stages.{name}\nprint(*{{'torch', 'torchvision'}}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_requirements_are_pinned_exactly():
    for file in ("requirements.txt", "requirements-dev.txt"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in wanted), file
        assert len({line.partition("==")[0] for line in wanted}) == len(wanted), file


def test_every_default_is_explained():
    """Each section or key of params.yaml has a comment on its line, or on its section's."""
    explained = False
    for line in (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            assert explained or "#" in line, line
        else:
            explained = "#" in line
