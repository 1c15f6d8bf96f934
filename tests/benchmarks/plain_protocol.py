"""The course's protocol as a plain PyTorch script: what the pipeline's speed is compared with.

    python -m tests.benchmarks.plain_protocol PREPARED_FOLDER PARAMS.json SEED

The stages' network, with the same images, batches, epochs, learning rates and evaluations, written
as one usually would: a DataLoader with worker processes, torchvision's transforms on single images,
float32, as many threads as torch takes, torch.optim, torch.nn.utils.prune, every evaluation a whole
pass. Prints seconds per part
and test accuracies as JSON. `protocol_speed` runs it, with the stages' params and the `steps` of
iterative pruning.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stages.lib.models import registry
from tests.benchmarks.common import timed


class Images(Dataset):
    """One part of a prepared data set, each image through `transform`."""

    def __init__(self, folder: Path, part: str, transform) -> None:
        self.images = np.load(folder / f"{part}_images.npy").transpose(0, 2, 3, 1)
        self.labels = np.load(folder / f"{part}_labels.npy")
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def accuracy(model: nn.Module, loader: DataLoader) -> float:
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(loader.dataset)


def train(model: nn.Module, loaders: dict, params: dict, stage: str) -> None:
    loader, own = loaders["train"], params[stage]
    epochs = own.get("epochs", own.get("epochs_per_step"))
    rate, usual = own["learning_rate"], {"nesterov": True}
    usual |= {name: params["training"][name] for name in ("momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), rate, **usual)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, epochs * len(loader), pct_start=0.2, cycle_momentum=False, div_factor=10
    )
    for _ in range(epochs):
        model.train()
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if stage == "train_baseline":  # for its learning curve
            accuracy(model, loaders["validation"])


def layers_of(model: nn.Module) -> list[tuple[nn.Module, str]]:
    kinds = nn.Conv2d | nn.Linear
    return [(layer, "weight") for layer in model.modules() if isinstance(layer, kinds)]


def prune_globally(model: nn.Module, sparsity: float) -> None:
    """To `sparsity` of all weights, counting what earlier steps removed."""
    layers = layers_of(model)
    total = sum(layer.weight.numel() for layer, _ in layers)
    removed = sum(int((layer.weight == 0).sum()) for layer, _ in layers)
    amount = round(sparsity * total) - (removed if prune.is_pruned(model) else 0)
    prune.global_unstructured(layers, prune.L1Unstructured, amount=amount)


def measured(model: nn.Module, loaders: dict) -> float:
    """Validation and test accuracy, of which the test's is returned."""
    accuracy(model, loaders["validation"])
    return accuracy(model, loaders["test"])


def sweep(model: nn.Module, loaders: dict, sparsities: list[float]) -> None:
    """Each layer alone, then all of them alike."""
    count = len(layers_of(model))
    for indices in [*([index] for index in range(count)), range(count)]:
        for sparsity in sparsities:
            pruned = copy.deepcopy(model)
            for index in indices:
                prune.l1_unstructured(*layers_of(pruned)[index], amount=sparsity)
            measured(pruned, loaders)


def main(folder: Path, params: dict, seed: int) -> dict:
    torch.manual_seed(seed)
    meta = json.loads((folder / "meta.json").read_text())
    training, sparsities = params["training"], params["sparsities"]
    plain = [transforms.ToTensor(), transforms.Normalize(meta["mean"], meta["std"])]
    shifted = transforms.RandomCrop(
        meta["image_shape"][1], padding=training["shift"], padding_mode="edge"
    )
    loaders = {
        part: DataLoader(
            Images(folder, part, transforms.Compose([*augmentation, *plain])),
            training["batch_size"],
            shuffle=part == "train",
            num_workers=2,
            persistent_workers=True,
        )
        for part, augmentation in (
            ("train", [shifted, transforms.RandomHorizontalFlip()]),
            ("validation", []),
            ("test", []),
        )
    }
    channels, classes = meta["image_shape"][0], len(meta["classes"])
    model = registry.build(
        registry.architecture("convnet", params["model"]["width"], channels, classes)
    )
    seconds, accuracies = {}, {}

    with timed(seconds, "baseline"):
        train(model, loaders, params, "train_baseline")
        accuracies["baseline"] = measured(model, loaders)
    with timed(seconds, "sweep"):
        sweep(model, loaders, sparsities)
    with timed(seconds, "finetune"):
        for sparsity in sparsities:
            pruned = copy.deepcopy(model)
            prune_globally(pruned, sparsity)
            measured(pruned, loaders)
            train(pruned, loaders, params, "finetune")
            accuracies[f"finetune {sparsity:g}"] = measured(pruned, loaders)
    with timed(seconds, "iterative"):
        pruned = copy.deepcopy(model)
        for sparsity in params["steps"]:
            prune_globally(pruned, sparsity)
            train(pruned, loaders, params, "iterative_prune")
            accuracies[f"iterative {sparsity:g}"] = measured(pruned, loaders)
    return {"seconds": seconds, "accuracies": accuracies}


if __name__ == "__main__":
    folder, params, seed = sys.argv[1:]
    print(json.dumps(main(Path(folder), json.loads(Path(params).read_text()), int(seed))))
