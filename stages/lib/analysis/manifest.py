"""What a run was made with: the little that decides whether two runs can be compared.

It stands beside the tables in reports/, so that a commit tells it without any artifact.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.lib.core import hardware


@dataclass(frozen=True)
class Manifest:
    """seeds; model: the params of that name; data: source, checksum, classes (names), images
    (number by part) and image_shape; hardware: as `hardware.describe` gives it.
    """

    seeds: list[int]
    model: dict[str, Any]
    data: dict[str, Any]
    hardware: dict[str, Any]

    def same_data(self, other: "Manifest") -> bool:
        """Whether both saw the same images in the same parts, under the same names."""
        return all(self.data[key] == other.data[key] for key in ("checksum", "classes", "images"))

    def same_shape(self, other: "Manifest") -> bool:
        """Whether a network fits the data of both: sizes and latencies can be compared."""
        return self.data["image_shape"] == other.data["image_shape"] and len(
            self.data["classes"]
        ) == len(other.data["classes"])

    def same_machine(self, other: "Manifest") -> bool:
        """Whether both ran on machines of one description; their software may differ."""
        return all(self.hardware[key] == other.hardware[key] for key in hardware.MACHINE)


DATA = {"source": str, "checksum": str, "classes": list, "images": dict, "image_shape": list}


def describe(
    seeds: Sequence[int],
    model: Mapping[str, Any],
    meta: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> Manifest:
    """The manifest of a run. meta: as `prepared.read_meta` gives it; machine: hardware's."""
    return Manifest(list(seeds), dict(model), {key: meta[key] for key in DATA}, dict(machine))


def _fits(value: Any) -> bool:
    kinds = {"seeds": list, "model": dict, "data": dict, "hardware": dict}
    if not isinstance(value, dict) or {key: type(one) for key, one in value.items()} != kinds:
        return False
    seeds, data = value["seeds"], value["data"]
    return (
        bool(seeds)
        and all(type(seed) is int for seed in seeds)
        and {key: type(one) for key, one in data.items()} == DATA
        and all(
            type(data["images"].get(part)) is int and data["images"][part] > 0
            for part in ("validation", "test")
        )
        and set(value["hardware"]) == set(hardware.KEYS)
    )


def parse(text: str) -> Manifest:
    """A manifest from its JSON text. ValueError, saying so, where it is torn or of another kind."""
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError("not JSON (cut short?)") from None
    if not _fits(value):
        raise ValueError("of another format")
    return Manifest(**value)
