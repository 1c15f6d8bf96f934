"""The rules of the house (DESIGN.md, section 2), each kept by a test."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pathspec
import pytest

from stages.lib.core import methods, params, paths, pipeline
from stages.lib.core.engines import ENGINES
from stages.lib.core.methods import METHODS

ROOT = Path(__file__).resolve().parent.parent
STAGES = sorted(path for path in (ROOT / "stages").glob("*.py") if path.name != "__init__.py")
LIBRARY = sorted(path for path in (ROOT / "stages/lib").rglob("*.py") if path.name != "__init__.py")
TOOLS = sorted(path for path in (ROOT / "stages/tools").glob("*.py") if path.name != "__init__.py")
CODE = [*STAGES, *LIBRARY, *TOOLS]

# What each package may import beside itself: the arrows of the house, one way.
MAY_IMPORT = {
    "core": set(),
    "data": {"core"},
    "models": {"core"},
    "evaluation": {"core", "models"},
    "arms": {"core", "evaluation"},
    "pruning": {"core", "models", "evaluation"},
    "quantization": {"core", "models"},
    "training": {"core", "models", "evaluation", "pruning"},
    "structured": {"core", "models", "evaluation", "pruning"},
    "compression": {"core", "models", "evaluation", "pruning", "quantization", "training"},
    "engines": {"core", "models", "evaluation"},
    "deploy": {"core", "models", "evaluation", "compression", "engines", "analysis"},
    "analysis": {"core"},
    "report": {"core", "analysis"},
}


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


def package(module: Path) -> str:
    """The package of a module of the library."""
    return module.relative_to(ROOT / "stages/lib").parts[0]


def reach(script: Path) -> set[str]:
    """The packages that a script is made of, as dependencies."""
    return {f"stages/lib/{package(one)}" for one in closure(script) if one in LIBRARY}


def stages_of_dvc() -> dict:
    return pipeline.stages([ROOT / path for path in paths.PIPELINES])


SCRIPTS = [*STAGES, *TOOLS]


def test_the_library_holds_packages_only():
    folder = ROOT / "stages/lib"
    assert {path.name for path in folder.glob("*.py")} == {"__init__.py"}
    assert {path.parent.name for path in folder.glob("*/__init__.py")} == set(MAY_IMPORT)
    assert all(path.read_text(encoding="utf-8") == "" for path in folder.rglob("__init__.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=names(SCRIPTS))
def test_a_stage_or_a_tool_imports_the_library_and_no_other(script):
    assert imports(script) <= set(LIBRARY)


@pytest.mark.parametrize("module", LIBRARY, ids=names(LIBRARY))
def test_packages_import_one_way(module):
    here = package(module)
    assert {package(one) for one in imports(module)} <= MAY_IMPORT[here] | {here}


def test_the_arrows_of_the_house_lead_one_way():
    left = dict(MAY_IMPORT)
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        assert free, f"a circle among {set(left)}"
        for name in free:
            del left[name]


def test_no_module_of_the_library_is_left_over():
    # The registry names criteria of pruning, which stage `controls` imports by their names.
    folder = ROOT / "stages/lib/pruning/criteria"
    names = {method.criterion for method in METHODS.values() if method.criterion}
    named = [folder / f"{name}.py" for name in names]
    # So does that of engines, which stages that execute files import.
    loaders = {engine.module for engine in ENGINES.values() if engine.module}
    named += [ROOT / f"stages/lib/engines/{name}.py" for name in loaders]
    # The server of the workers imports it by its name.
    preloaded = ROOT / "stages/lib/arms/preload.py"
    first = ROOT / "stages/__init__.py"
    used = set().union(*map(closure, [*SCRIPTS, *named, preloaded, first]))
    assert set(LIBRARY) <= used


# Programs that are handed over: they run where there is no repository.
ALONE = {ROOT / f"stages/lib/deploy/{name}.py" for name in ("predict", "unpack")}


@pytest.mark.parametrize("path", sorted(ALONE), ids=lambda path: path.stem)
def test_what_is_handed_over_imports_nothing_of_the_project(path):
    assert not imports(path)
    assert "stages" not in path.read_text(encoding="utf-8")


def test_one_module_and_what_is_handed_over_load_onnx_runtime_without_its_telemetry():
    first = re.compile(r"^(import|from) onnxruntime", re.MULTILINE)
    texts = {path.name: path.read_text(encoding="utf-8") for path in CODE}
    loaders = {name: first.search(text) for name, text in texts.items() if first.search(text)}
    assert set(loaders) == {"onnx_runtime.py", "predict.py"}
    for name, found in loaders.items():
        assert "ORT_DISABLE_TELEMETRY" in texts[name][: found.start()]


def attributes_of(path: Path, module: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == module
    }


def test_one_module_reads_the_params_file():
    readers = [path.name for path in CODE if "PARAMS" in attributes_of(path, "paths")]
    assert set(readers) == {"params.py", "stage.py"}


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
    assert path.name == "paths.py" or path in ALONE or not literals


NAME_PARTS = {
    "_".join(words[start:end])
    for words in (name.split("_") for name in methods.METHODS)
    for start in range(len(words))
    for end in range(start + 1, len(words) + 1)
}


def is_part_of_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).strip("_") in NAME_PARTS


def parses_names(node: ast.AST) -> bool:
    """Whether a method's name is taken apart, as in method.split("_") or name.startswith("onnx_"),
    or put together, as in f"{method}_finetune".
    """
    if isinstance(node, ast.JoinedStr):
        return any("_" in str(part.value) and is_part_of_a_name(part) for part in node.values)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return False
    owner, called = node.func.value, node.func.attr
    is_method = "method" in (getattr(owner, "id", ""), getattr(owner, "attr", ""))
    arguments = [part for argument in node.args for part in ast.walk(argument)]
    cuts = called in ("startswith", "endswith", "removeprefix", "removesuffix")
    splits = called in ("split", "rsplit", "partition", "rpartition")
    return (splits and is_method) or (
        cuts and (is_method or any(map(is_part_of_a_name, arguments)))
    )


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_a_methods_name_is_looked_up_and_not_taken_apart(path):
    if str(path.relative_to(ROOT)) != "stages/lib/core/methods.py":
        assert not [node.lineno for node in ast.walk(tree(path)) if parses_names(node)]


# What hands a script its places.
HANDING = {"stages/lib/core/stage.py", "stages/lib/evaluation/context.py"}
# What says which files a run itself rewrites.
HANDING |= {"stages/lib/core/repository.py"}


@pytest.mark.parametrize("path", LIBRARY, ids=names(LIBRARY))
def test_only_stage_scripts_know_the_places_of_results(path):
    places = {
        "ARTIFACTS", "REPORTS", "PREPARED", "HARDWARE", "DEPLOY", "INPUT_DATA", "INPUT_MODEL",
        "REPORT_MARKDOWN", "REPORT_PAGE", "METRICS", "FINDINGS", "FIGURES", "PLOTS", "RUNS",
        "stage_directory", "baseline", "reported",
    }  # fmt: skip
    assert not places & attributes_of(path, "paths") or str(path.relative_to(ROOT)) in HANDING


@pytest.mark.parametrize("path", CODE, ids=names(CODE))
def test_nothing_is_pickled(path):
    source = path.read_text(encoding="utf-8")
    # Where the user's weights are read, torch unpickles tensors and nothing else.
    source = re.sub(r"torch\.load\([^()]*weights_only=True\)", "", source)
    assert not re.search(r"torch\.(save|load)\(|import pickle|allow_pickle=True", source)


NAMES = [path.stem for path in STAGES]


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_depends_on_its_script_and_the_packages_that_it_reaches(name):
    deps = set(stages_of_dvc()[name]["deps"])
    assert {"requirements.txt", f"stages/{name}.py"} <= deps
    code = {dep for dep in deps if dep.startswith("stages/lib/")}
    assert code == reach(ROOT / f"stages/{name}.py")


@pytest.mark.parametrize("name", NAMES)
def test_the_pipeline_lists_every_section_that_a_stage_reads(name):
    listed = set(pipeline.declared(name).params)
    assert listed <= set(params.SECTIONS) - set(params.UNTRACKED)
    read = set()
    for path in closure(ROOT / f"stages/{name}.py"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Attribute) and node.attr in params.SECTIONS:
                owner = node.value
                if "params" in (getattr(owner, "attr", ""), getattr(owner, "id", "")):
                    read.add(node.attr)
    # What the report and the cards show of all sections they read from a mapping.
    shows_all = name in ("report", "package")
    assert read <= listed if shows_all else listed - {"seeds"} <= read
    script = ROOT / f"stages/{name}.py"
    assert {one for one in attributes_of(script, "params") if one in params.SECTIONS} <= listed


@pytest.mark.parametrize("name", NAMES)
def test_per_seed_stages_are_a_matrix_over_the_seeds(name):
    stage = stages_of_dvc()[name]
    # The formats are benched for the first seed alone, so that another seed does not touch them.
    first = name == "dtype_bench"
    per_seed = "matrix" in stage
    assert stage.get("matrix") in (None, {"seed": "${seeds}"})
    seed = "${seeds[0]}" if first else "${item.seed}"
    wanted = f"python3 -m stages.{name}" + (per_seed or first) * f" --seed {seed}"
    assert stage["cmd"] == wanted


def test_dvc_ignores_no_output():
    """Else it takes a folder for empty: nobody sees a change, and its cache gives nothing back."""
    ignored = pathspec.GitIgnoreSpec.from_lines((ROOT / ".dvcignore").read_text().splitlines())
    outputs = [output for name in NAMES for output in pipeline.declared(name).outs(0)]
    files = [path if path.suffix else path / "a_file" for path in outputs]
    assert not [file for file in files if ignored.match_file(file)]
    assert ignored.match_file("artifacts/finetune/a_file")


def test_every_stage_of_the_pipeline_is_a_script_and_the_reverse():
    assert set(stages_of_dvc()) == {path.stem for path in STAGES}


def test_every_section_is_read_by_some_stage():
    read = set().union(*(stage["params"] for stage in stages_of_dvc().values()))
    assert read == set(params.SECTIONS) - set(params.UNTRACKED)


@pytest.mark.parametrize("name", ["report", "probe", "tools.compare"])
def test_stages_without_networks_do_not_import_torch(name):
    program = (
        f"import sys, stages.{name}\nprint(*{{'torch', 'torchvision'}}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_requirements_are_pinned_exactly():
    files = ("requirements.txt", "requirements-openvino.txt", "requirements-ray.txt",
             "requirements-dev.txt")  # fmt: skip
    for file in files:
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


def test_networks_are_copied_in_one_way():
    """Which keeps where they come from, and copies what torch refuses to copy."""
    found = [path.name for path in CODE if "deepcopy(" in path.read_text(encoding="utf-8")]
    assert found == ["origins.py"]


def test_people_s_networks_never_run_in_inference_mode():
    """What they keep of it could not be used in training."""
    entered = re.compile(r"inference_mode\((?!False)")
    assert not [path for path in CODE if entered.search(path.read_text(encoding="utf-8"))]
