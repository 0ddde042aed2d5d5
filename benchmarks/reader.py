"""Windows of a slide a second, and the CPU time that each takes: Redline's own reader of tiles against OpenSlide.

The slide is the real region that is shipped and its mirror images, tiles of JPEG; then that real slide by itself. All
readers take turns, each time with a fresh handle and an empty cache, over the same windows row by row. Their pixels are
compared first.

    python benchmarks/reader.py -o results/cpu/reader.json

Ends with 1 where, on the large slide at an overlap of 0.2, OpenSlide's windows take less than 5 times the CPU time of
ours on one thread (median over the rounds), or where a pixel differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import openslide

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.scale.slides_tools import REAL_SVS, make_pyramid

import redline
from redline.core.files import whole_file, write_whole
from redline.core.plain import to_plain
from redline.core.tensor import Array
from redline.measurement.environment import fingerprint, installed, noise_check
from scale.slides.cache import TileCache
from scale.slides.opening import open_slide

WANTED = 5.0
REFERENCE, OURS = "openslide", "redline, 1 thread"
OPENSLIDE_CACHE_BYTES = 256 << 20
PACKAGES = ("openslide-python", "openslide-bin", "tifffile", "imagecodecs", "zarr", "numpy")

Read = Callable[[int, int], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The windows that every reader reads."""

    slide: Path
    overlap: float
    window_px: int
    places: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One way to read windows, and how many threads call it."""

    open: Callable[[Path, int], Any]
    threads: int = 1


@contextmanager
def with_openslide(path: Path, window_px: int, cache_bytes: int | None = None) -> Iterator[Read]:
    with openslide.OpenSlide(path) as slide:
        if cache_bytes is not None:
            slide.set_cache(openslide.OpenSlideCache(cache_bytes))
        size = (window_px, window_px)
        yield lambda x, y: np.asarray(slide.read_region((x, y), 0, size).convert("RGB"))


@contextmanager
def with_openslide_cache(path: Path, window_px: int) -> Iterator[Read]:
    with with_openslide(path, window_px, OPENSLIDE_CACHE_BYTES) as read:
        yield read


@contextmanager
def with_zarr(path: Path, window_px: int) -> Iterator[Read]:
    import tifffile
    import zarr

    with tifffile.TiffFile(path) as tiff:
        store = zarr.open(tiff.aszarr(series=0, level=0), mode="r")
        yield lambda x, y: np.asarray(store[y : y + window_px, x : x + window_px])


@contextmanager
def with_redline(path: Path, window_px: int) -> Iterator[Read]:
    with open_slide(path, reader="tiled", cache=TileCache()) as slide:
        yield lambda x, y: slide.read(x, y, window_px, window_px)


def readers() -> dict[str, Reader]:
    """Those that are installed."""
    found = {
        REFERENCE: Reader(open=with_openslide),
        "openslide, 256 MB cache": Reader(open=with_openslide_cache),
    }
    if importlib.util.find_spec("zarr"):
        found["tifffile + zarr"] = Reader(open=with_zarr)
    found[OURS] = Reader(open=with_redline)
    found["redline, 2 threads"] = Reader(open=with_redline, threads=2)
    return found


def work_on(slide: Path, overlap: float, window_px: int, most: int) -> Work:
    """Whole rows of windows from the top, as many as ``most`` windows allow, one at least."""
    with openslide.OpenSlide(slide) as opened:
        width, height = opened.dimensions
    stride = window_px - int(overlap * window_px)
    columns = range(0, width - window_px + 1, stride)
    rows = range(0, height - window_px + 1, stride)[: max(1, most // len(columns))]
    return Work(slide=slide, overlap=overlap, window_px=window_px, places=[(x, y) for y in rows for x in columns])


def run(reader: Reader, work: Work) -> dict[str, float]:
    """Read every window once; seconds of the wall clock and of all threads' CPU, for each window."""
    begun, cpu = perf_counter(), process_time()
    with reader.open(work.slide, work.window_px) as read:
        if reader.threads == 1:
            for x, y in work.places:
                read(x, y)
        else:
            with ThreadPoolExecutor(reader.threads) as pool:
                for _ in pool.map(lambda place: read(*place).shape, work.places):
                    pass
    count = len(work.places)
    return {"windows_per_s": count / (perf_counter() - begun), "cpu_s": (process_time() - cpu) / count}


def largest_difference(reader: Reader, work: Work) -> int:
    """Of any pixel of some windows from OpenSlide's, in levels of gray; the first and the last are among them."""
    picked = [*work.places[:: max(1, len(work.places) // 20)], work.places[-1]]
    with with_openslide(work.slide, work.window_px) as truth, reader.open(work.slide, work.window_px) as read:
        return max(int(np.abs(read(x, y).astype(np.int16) - truth(x, y)).max()) for x, y in picked)


def measure(work: Work, rounds: int) -> dict[str, Any]:
    """All readers in turns that start with another one each time, after one turn that does not count."""
    chosen = readers()
    names = list(chosen)
    differences = {name: largest_difference(reader, work) for name, reader in chosen.items()}
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            sample = run(chosen[name], work)
            if turn:
                samples[name].append(sample)
    return {
        "overlap": work.overlap,
        "windows": len(work.places),
        "readers": {name: summary(samples[name], samples[REFERENCE], differences[name]) for name in names},
    }


def summary(samples: list[dict[str, float]], reference: list[dict[str, float]], difference: int) -> dict[str, Any]:
    """One reader's medians, and how many times OpenSlide's CPU time is its own, round by round."""
    ratios = [theirs["cpu_s"] / own["cpu_s"] for theirs, own in zip(reference, samples, strict=True)]
    return {
        "median_windows_per_s": median(sample["windows_per_s"] for sample in samples),
        "median_cpu_ms": 1000 * median(sample["cpu_s"] for sample in samples),
        "openslide_cpu_over_own": median(ratios),
        "largest_difference": difference,
        "samples": samples,
    }


def print_table(title: str, result: dict[str, Any]) -> None:
    print(f"\n{title}, overlap {result['overlap']}, {result['windows']} windows")
    print(f"{'reader':26}{'windows/s':>11}{'CPU ms':>9}{'OpenSlide/own':>15}{'difference':>12}")
    for name, row in result["readers"].items():
        figures = f"{row['median_windows_per_s']:>11.0f}{row['median_cpu_ms']:>9.2f}"
        print(f"{name:26}{figures}{row['openslide_cpu_over_own']:>15.2f}{row['largest_difference']:>12}")


def synthetic(folder: Path, side_px: int) -> Path:
    """The large slide, made where it is not there yet."""
    path = folder / f"redline_reader_{side_px}.tif"
    if not path.exists():
        with whole_file(path) as scratch:
            make_pyramid(scratch, side_px, side_px)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20480, help="of the large slide, in pixels")
    parser.add_argument("--window", type=int, default=512, help="in pixels")
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.2, 0.8])
    parser.add_argument("--windows", type=int, default=2401, help="most of one run; the default is all at 0.2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="keeps the large slide")
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    environment = to_plain(fingerprint(noise=noise_check()))
    slides = {f"synthetic {args.side}x{args.side}": synthetic(args.folder, args.side), REAL_SVS.name: REAL_SVS}
    results: dict[str, list[dict[str, Any]]] = {}
    for title, slide in slides.items():
        results[title] = []
        for overlap in args.overlaps:
            results[title].append(measure(work_on(slide, overlap, args.window, args.windows), args.rounds))
            print_table(title, results[title][-1])
    measured = [result for found in results.values() for result in found]
    ratio = next(iter(results.values()))[0]["readers"][OURS]["openslide_cpu_over_own"]
    equal = all(row["largest_difference"] == 0 for result in measured for row in result["readers"].values())
    print(
        f"\nOpenSlide's CPU time is {ratio:.2f} times ours (wanted: {WANTED}); pixels are {'' if equal else 'un'}equal"
    )
    document = {
        "benchmark": "reader",
        "command": " ".join(["python", "benchmarks/reader.py", *sys.argv[1:]]),
        "what": "windows of level 0 as RGB arrays; a fresh handle and an empty cache each time, files in memory",
        "window_px": args.window,
        "rounds": args.rounds,
        "slide_bytes": {title: slide.stat().st_size for title, slide in slides.items()},
        "results": results,
        "openslide_cpu_over_own": ratio,
        "wanted": WANTED,
        "pixels_equal": equal,
        "packages": installed(PACKAGES),
        "redline": redline.__version__,
        "environment": environment,
    }
    if args.out:
        write_whole(args.out, json.dumps(document, indent=1) + "\n")
    return 0 if ratio >= WANTED and equal else 1


if __name__ == "__main__":
    sys.exit(main())
