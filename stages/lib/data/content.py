"""SHA-256 of many files, which are read again only if inode, size or a time changed."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from stages.lib.core import hardware, outputs

# A file that was written this shortly before it was read may be written again within the same tick
# of the clock, and look unchanged.
_TICK_NS = 2 * 10**9
_MOST_THREADS = 16


def _key(status: os.stat_result) -> str:
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _read(memory: Path) -> dict[str, str]:
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # the files are read again
        return {}
    return known if isinstance(known, dict) else {}


def _hash(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  this runs for every file of large sets
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return error.strerror or type(error).__name__


def hashes(files: Iterable[tuple[str, os.stat_result]], memory: Path) -> Iterator[str]:
    """Yields the SHA-256 of each file, in order; the error's text if one cannot be read.

    files: path and status of each.
    memory: the JSON file in which hashes are remembered; written anew if there is a new one.
    """
    files = list(files)
    known, now = _read(memory), time.time_ns()
    keys = [_key(status) for _, status in files]
    new = [index for index, key in enumerate(keys) if not isinstance(known.get(key), str)]
    with ThreadPoolExecutor(min(hardware.cores(), _MOST_THREADS)) as pool:
        read = pool.map(_hash, (files[index][0] for index in new))
        bar = tqdm(read, "reading your files", len(new), unit="file", leave=False, disable=None)
        fresh = dict(zip(new, bar, strict=True))
    found = [fresh.get(index) or known[key] for index, key in enumerate(keys)]
    settled = {
        key: one
        for key, one, (_, status) in zip(keys, found, files, strict=True)
        if max(status.st_mtime_ns, status.st_ctime_ns) < now - _TICK_NS
    }
    if settled.keys() != known.keys():
        outputs.write_text(memory, json.dumps(settled))
    yield from found
