"""Every path of the project, relative to the repository's root, where stages run."""

from pathlib import Path

PARAMS = Path("params.yaml")
# The stage that always runs has its own file.
PIPELINES = (Path("dvc.yaml"), Path("probe/dvc.yaml"))
# What DVC writes beside them.
LOCKS = tuple(path.with_suffix(".lock") for path in PIPELINES)
REQUIREMENTS = Path("requirements.txt")
OPENVINO_REQUIREMENTS = Path("requirements-openvino.txt")
PREPARED = Path("data/prepared")
PARTS = ("train", "validation", "test")
ARTIFACTS = Path("artifacts")
HARDWARE = ARTIFACTS / "hardware.json"
# How long each stage took on this machine. No output: it differs from run to run.
SECONDS = ARTIFACTS / "seconds.json"
ENGINES = ARTIFACTS / "engines.json"
DEPLOY = ARTIFACTS / "deploy"
# Beside DVC's own notes, which Git ignores: the hashes of the person's images, by data.root.
CONTENT = Path(".dvc/tmp/content")
# There too: which files the person's network opens.
OPENED = Path(".dvc/tmp/opened")
INPUT_DATA = ARTIFACTS / "inputs/data.json"
INPUT_MODEL = ARTIFACTS / "inputs/model.json"
INPUT_TEACHER = ARTIFACTS / "inputs/teacher.json"

REPORTS = Path("reports")
REPORT_MARKDOWN = REPORTS / "report.md"
REPORT_PAGE = REPORTS / "index.html"
METRICS = REPORTS / "metrics.json"
FINDINGS = REPORTS / "findings.json"
FIGURES = REPORTS / "figures"
PLOTS = REPORTS / "plots"
RUNS = REPORTS / "runs"

TABLES = "*.csv"
ROWS = "rows.csv"
PREDICTIONS = "predictions.safetensors"
VALIDATION_PREDICTIONS = "validation_predictions.safetensors"
MODEL = "model.safetensors"
TEACHER = "teacher.json"
LEARNING_CURVE = "learning_curve.csv"
BEST_TRADEOFF = "best_tradeoff.csv"
LAYERS = "layers.csv"
QUANTIZED_LAYERS = "layers.csv"
FILTERS = "filters.csv"
REFUSED = "refused.csv"
AGREEMENT = "agreement.csv"
INT8_LAYERS = "int8_layers.csv"
LATENCIES = "latencies.csv"
QUANTIZATION_PLOT = "quantization.csv"
BUDGET_PLOT = "budgets.csv"
META = "meta.json"
SELECTION = "selection.json"
MANIFEST = "run.json"
MODEL_CARD = "model_card.json"
CARD_PAGE = "README.md"
CARD_TEMPLATE = "card.md.j2"
LABELS = "labels.txt"
SAMPLE = "sample.json"
SAMPLE_PHOTO = "sample.jpg"
SAMPLE_PIXELS = "sample.png"
PREDICT = "predict.py"
UNPACK = "unpack.py"
# Beside a file of integer weights: what unpack.py must know of it, and what it writes.
LAYOUT = ".layout.json"
UNPACKED = ".float32.safetensors"
SAFETENSORS = ".safetensors"
# In a file of torch.export.save.
EXPORTED_WEIGHTS = "model_weights_config.json"
PACKED = ".packed"
ONNX = ".onnx"
ARRAY = ".npy"
TABLE = ".csv"
LABEL_TABLES = (".csv", ".tsv")
PICTURE = ".svg"
# What phones and exports put beside photos: films, and what was edited or is known of a photo.
BESIDE = {
    ".3gp", ".aae", ".avi", ".json", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".thm", ".webm",
    ".xmp",
}  # fmt: skip
CODE = (".py", ".j2", ".html", ".css", ".js")
# Beside the module that renders them.
SITE_TEMPLATE = "page.html"
MARKDOWN_TEMPLATE = "report.md.j2"
WORDS = "words.j2"
SITE_STYLE = "page.css"
SITE_SCRIPT = "page.js"
STAGED_IMAGES = "images.staged"


def is_result(path: Path) -> bool:
    """Whether an absolute path lies in a folder into which this pipeline writes."""
    return any(path.is_relative_to(Path.cwd() / each) for each in (ARTIFACTS, REPORTS, PREPARED))


def stage_directory(stage: str, seed: int | None = None) -> Path:
    """The folder of a stage's outputs: `artifacts/STAGE`, or `artifacts/STAGE/seed-N`."""
    directory = ARTIFACTS / stage
    return directory if seed is None else directory / f"seed-{seed}"


def reported(file: Path) -> Path:
    """The report's copy of a stage's table: `reports/runs/STAGE/seed-N/rows.csv`."""
    return RUNS / file.relative_to(ARTIFACTS)


def baseline(seed: int) -> Path:
    """The file of a seed's baseline."""
    return stage_directory("train_baseline", seed) / MODEL


def array_name(part: str, kind: str) -> str:
    """File name of a prepared array: `train_images.npy`."""
    return f"{part}_{kind}{ARRAY}"


def network_name(
    method: str, target_sparsity: float = 0, weight_bits: int = 32, times_smaller: float = 1
) -> str:
    """What a network's file, without its suffix, and its predictions are called: `global-0.8`,
    `affine_tensor-8bit`, `onnx_finetune_int8-0.98-8bit`, `packed-20x`.
    """
    sparsity = f"-{target_sparsity:g}" if target_sparsity else ""
    if times_smaller != 1:
        return f"{method}-{times_smaller:g}x"
    return f"{method}{sparsity}" if weight_bits == 32 else f"{method}{sparsity}-{weight_bits}bit"


def executed_name(network: str, engine: str) -> str:
    """What the predictions of a network are called in an engine that is not the first to execute
    its kind of file: `onnx_baseline_int8-8bit-openvino`. network: of `network_name`.
    """
    return f"{network}-{engine}"
