"""Predicts the classes of photos with a network of this folder.

    python predict.py photo.jpg …                       file, label and probability of each
    python predict.py --model smallest.onnx photo.jpg   another network than the fastest
    python predict.py --check                           are the answers here those of the sample?

It needs numpy, Pillow, ONNX Runtime and, where that was faster, OpenVINO (requirements.txt), and
nothing else of where it came from. Size, colours and classes are in the ONNX file's metadata.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports its use otherwise

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
# In the order in which one is taken if none is named.
NETWORKS = ("fastest.onnx", "smallest.onnx")
SAMPLE, CARD = "sample.json", "model_card.json"
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"


class ProblemError(Exception):
    """What is wrong, and what to do, in a line."""


class Network:
    """A network that reads raw pixels: its normalization is inside.

    classes: names, in the order of the logits.
    size: (height, width) of its images in pixels.
    mode: L for grey images, RGB for colour (not OpenCV's BGR).
    """

    def __init__(self, file: str | Path, threads: int = 1, engine: str | None = None) -> None:
        """threads: of the engine. engine: onnxruntime or openvino; None: that of the model card."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base
            reason = still_packed(Path(file)) or str(error).splitlines()[0]
            raise ProblemError(f"{file}: {reason}") from None
        about = self.session.get_modelmeta().custom_metadata_map
        image = json.loads(about["preprocessing"])
        self.classes = json.loads(about["classes"])
        self.size, self.mode = (image["height"], image["width"]), image["mode"]
        self.engine = engine or measured_engine(Path(file))
        if self.engine == OPENVINO:
            self.execute = in_openvino(file, threads)
        else:
            self.execute = lambda images: self.session.run(["logits"], {"images": images})[0]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """float32 [n, classes], of images that are uint8 [n, channels, height, width]."""
        return self.execute(images)

    def read(self, photo: str | Path) -> np.ndarray:
        """A photo as the network must see it: uint8 [channels, height, width]."""
        return pixels(photo, self.size, self.mode)


def measured_engine(file: Path) -> str:
    """The engine in which the model card beside a file has its latency."""
    card = file.with_name(CARD)
    about = json.loads(card.read_text("utf-8")) if card.exists() else {}
    chosen = [about.get(role) and about[role]["chosen"] for role in ("fastest", "smallest")]
    engines = {one["file"]: one["engine"] for one in chosen if one}
    return OPENVINO if engines.get(file.name) == OPENVINO else ONNX_RUNTIME


def in_openvino(file: str | Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Executes a network in OpenVINO. It is compiled for each shape of images that comes, and one
    request of each shape is reused: that is how it was timed.
    """
    import openvino

    core, requests = openvino.Core(), {}
    network = core.read_model(str(file))
    options = {
        "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False,
    }  # fmt: skip

    def execute(images: np.ndarray) -> np.ndarray:
        if images.shape not in requests:
            network.reshape(list(images.shape))
            compiled = core.compile_model(network, "CPU", options)
            requests[images.shape] = compiled.create_infer_request()
        request = requests[images.shape]
        request.get_input_tensor().data[:] = images
        request.infer(share_outputs=True)
        return request.get_output_tensor().data.copy()

    return execute


def still_packed(file: Path) -> str:
    """Says so if a file's weights are not unpacked yet; else empty."""
    if file.suffix == ".packed":
        unpacked = file.with_suffix(".onnx").name
        return f"its weights are packed: python unpack.py {file.name}, then --model {unpacked}"
    layout = file.with_suffix(".layout.json")
    if not layout.exists():
        return ""
    about = json.loads(layout.read_text("utf-8"))
    missing = not layout.with_name(about["weights"]).exists()
    return f"its weights are packed: python unpack.py {about['packed']}" if missing else ""


def pixels(photo: str | Path, size: tuple[int, int], mode: str) -> np.ndarray:
    """A photo as networks of this folder saw photos in training: turned upright by its EXIF tag,
    the shorter side resized (bicubic, antialiased), the centre kept, what is transparent on white.

    size: (height, width). mode: L or RGB. Returns uint8 [channels, height, width].
    """
    height, width = size
    try:
        image = Image.open(photo)
        # Decodes a large JPEG at half, a quarter or an eighth of its size if that is enough.
        image.draft(None, (2 * width, 2 * height))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ProblemError(f"{photo}: cannot be read as an image ({error})") from None
    image = ImageOps.exif_transpose(image)
    if image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode in ("1", "P", "PA"):
        image = image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}[image.mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA", "CMYK"):
        raise ProblemError(f"{photo}: pixels in mode {image.mode}; save it with 8 bits per channel")
    image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        image = white
    array = np.asarray(image.convert(mode))
    return array[None] if mode == "L" else array.transpose(2, 0, 1)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of each row."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def check(folder: Path, threads: int, engine: str | None) -> bool:
    """Compares this machine's answers with those that were written down with the folder. Networks
    that are not unpacked yet are left out, with a line.
    """
    expected = json.loads((folder / SAMPLE).read_text("utf-8"))
    stored = np.asarray(Image.open(folder / expected["pixels"]))
    stored = stored[None] if stored.ndim == 2 else stored.transpose(2, 0, 1)
    fine = True
    for name, wanted in expected["logits"].items():
        if reason := still_packed(folder / name):
            print(f"{name}: not checked: {reason}", file=sys.stderr)
            continue
        network = Network(folder / name, threads, engine)
        image = network.read(folder / expected["photo"])
        away = int(np.abs(image.astype(int) - stored.astype(int)).max())
        found, known = network.logits(stored[None])[0], np.float32(wanted["logits"])
        difference, allowed = float(np.abs(found - known).max()), wanted["tolerance"]
        labels = [network.classes[int(logits.argmax())] for logits in (found, known)]
        good = away <= expected["levels"] and difference <= allowed and labels[0] == labels[1]
        fine = fine and good
        print(
            f"{name}: {'as measured' if good else 'NOT as measured'}: {labels[0]}"
            f" (expected {labels[1]}); logits differ by {difference:.2g} (allowed {allowed:.2g}),"
            f" pixels of {expected['photo']} by {away} of 255 (allowed {expected['levels']})"
        )
    return fine


def main(argv: Sequence[str] | None = None) -> int:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    parser.add_argument("photos", nargs="*", metavar="PHOTO", help="JPEG, PNG, WebP, …")
    parser.add_argument("--model", metavar="FILE", help="an ONNX file of this folder")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default: 1)")
    parser.add_argument("--engine", choices=(ONNX_RUNTIME, OPENVINO), help="default: the card's")
    parser.add_argument("--check", action="store_true", help="compare with what was measured")
    arguments = parser.parse_args(argv)
    if not arguments.photos and not arguments.check:
        parser.error("name a photo, or --check")
    try:
        if arguments.check and not check(HERE, arguments.threads, arguments.engine):
            return 1
        if arguments.photos:
            named = [arguments.model] if arguments.model else NETWORKS
            files = [*map(Path, named[: bool(arguments.model)]), *(HERE / name for name in named)]
            there = [file for file in files if file.exists()]
            if not there:
                raise ProblemError(f"{HERE}: holds no {' or '.join(named)}; see README.md")
            network = Network(there[0], arguments.threads, arguments.engine)
            unread = 0
            for photo in arguments.photos:
                try:
                    image = network.read(photo)
                except (ProblemError, OSError) as error:
                    print(f"error: {error}", file=sys.stderr)
                    unread += 1
                    continue
                (chances,) = probabilities(network.logits(image[None]))
                best = int(chances.argmax())
                print(f"{photo}\t{network.classes[best]}\t{chances[best]:.4f}")
            return 2 if unread else 0
    except (ProblemError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
