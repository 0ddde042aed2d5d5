"""Batches as a deployment gets them: image files decoded again and again, in line or while the model runs."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from redline.core.errors import DataError
from redline.core.plain import Json, from_plain
from redline.core.preprocess import Preprocess
from redline.core.samples import Skipped
from redline.core.tensor import Array, Signature
from redline.data.images import SUFFIXES, read_image
from redline.data.synthetic import synthetic_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """Which images, and how they become batches.

    Attributes:
        folder: Where the images are, at any depth; hidden ones are none.
        preprocess: How an image becomes an input.
        input_name: The input that they are for.
        batch: How many make a batch.
        threads: How many decode.
        depth: How many batches are made ahead where they are made in the background.
        seed: Of the order, which is another in every round through the folder.
        dtype: Of the input.
    """

    folder: Path
    preprocess: Preprocess
    input_name: str
    batch: int
    threads: int = 1
    depth: int = 2
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("batch", "threads", "depth"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}, expected at least 1")


class RealLoader:
    """Decodes the images of a folder into batches without an end, in a shuffled order that the seed fixes.

    Of fewer images than a batch has, some are in it several times. A broken image is noted once, and the next readable
    one in the order of names takes its place from then on.
    """

    def __init__(self, options: LoaderOptions) -> None:
        """Find the images, and one that is readable.

        Raises:
            DataError: there is none.
        """
        self._options = options
        self._files = _image_files(options.folder)
        self._broken: dict[int, str] = {}
        self._turn = 0
        self._order: tuple[int, Array] = (-1, np.empty(0, np.intp))
        self._stream: BatchStream | None = None
        self._shape = self._image(0).shape

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The images that were found broken so far, in the order of names."""
        folder = self._options.folder
        return tuple(
            Skipped(self._files[index].relative_to(folder).as_posix(), reason)
            for index, reason in sorted(self._broken.items())
        )

    @property
    def images(self) -> int:
        """How many image files there are, broken ones among them."""
        return len(self._files)

    def batches(self, *, prefetch: bool = False) -> BatchStream:
        """Go on with the next batches: each made when it is asked for, or ahead in the background.

        It ends the stream that was begun before.
        """
        self.close()
        self._stream = BatchStream(self._begin, self._options.threads, self._options.depth if prefetch else 0)
        return self._stream

    def close(self) -> None:
        """End what runs in the background."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, pool: ThreadPoolExecutor) -> _Pending:
        """Have the next batch made."""
        options = self._options
        whole = np.empty((options.batch, *self._shape), np.dtype(options.dtype))
        parts = [pool.submit(self._decode_into, place, self._next_file()) for place in whole]
        return _Pending({options.input_name: whole}, parts)

    def _next_file(self) -> int:
        epoch, position = divmod(self._turn, len(self._files))
        self._turn += 1
        if self._order[0] != epoch:
            random = np.random.default_rng([self._options.seed, epoch])
            self._order = epoch, random.permutation(len(self._files))
        return int(self._order[1][position])

    def _decode_into(self, place: Array, index: int) -> None:
        place[...] = self._image(index)

    def _image(self, wanted: int) -> Array:
        for step in range(len(self._files)):
            index = (wanted + step) % len(self._files)
            if index in self._broken:
                continue
            try:
                return read_image(self._files[index], self._options.preprocess)
            except DataError as error:
                self._broken[index] = str(error)
        name, reason = self._files[0].name, self._broken[0]
        raise DataError(f"{self._options.folder}: none of {len(self._files)} images is readable; {name}: {reason}")


class BatchStream:
    """The batches of one loader while somebody asks for them; an iterator."""

    def __init__(self, begin: Callable[[ThreadPoolExecutor], _Pending], threads: int, depth: int) -> None:
        """Begin as many as are made ahead."""
        self._begin = begin
        self._depth = depth
        self._taken = 0
        self._settled = depth == 0
        # The decoder's threads set and restore what the process does about warnings, in any order: whatever they
        # leave is what is set here, until the end.
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, "redline-loader")
        self._ahead = deque(begin(self._pool) for _ in range(depth))

    @property
    def settled(self) -> bool:
        """Whether as much is made ahead as will usually be: all of it, or nothing as the batches are taken faster."""
        return self._settled

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Array]:
        """The next batch, its arrays the caller's to keep.

        Raises:
            DataError: no image is readable any more, or the stream has ended.
        """
        if self._pool is None:
            raise DataError("the stream of batches has ended; begin another")
        full = all(batch.done for batch in self._ahead)
        self._ahead.append(self._begin(self._pool))
        batch = self._ahead.popleft()
        # The first batch is waited for in any case; after as many as are made ahead, things are as they stay.
        waited = self._taken > 0 and not batch.done
        self._settled = self._settled or full or waited or self._taken >= self._depth
        self._taken += 1
        return batch.result()

    def close(self) -> None:
        """End the threads; batches that nobody took are lost. Again does nothing."""
        if self._pool is None:
            return
        self._pool.shutdown(cancel_futures=True)
        self._pool = None
        self._ahead.clear()
        self._warnings.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_loader(arguments: Mapping[str, Json]) -> RealLoader:
    """What a worker calls; plain JSON values by the names of :class:`LoaderOptions`."""
    return RealLoader(from_plain(LoaderOptions, arguments, where="loader"))


def dummy_batches(
    signature: Signature, batch: int, count: int, seed: int, *, sizes: Mapping[str, int] | None = None
) -> list[dict[str, Array]]:
    """Fresh random batches, each drawn anew, as :func:`redline.data.synthetic.synthetic_samples` makes them.

    Raises:
        DataError: an input that random numbers cannot stand in for.
        SignatureError: a model that is fixed at another batch size.

    >>> from redline.core.tensor import TensorSpec
    >>> [one["x"].shape for one in dummy_batches(Signature((TensorSpec("x", ("n", 3), "float32"),), ()), 4, 2, 0)]
    [(4, 3), (4, 3)]
    """
    seeds = np.random.SeedSequence(seed).generate_state(count)
    made = [synthetic_samples(signature, batch, seed=int(one), sizes=sizes).inputs for one in seeds]
    for one in made:
        signature.check(one)
    return made


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch that is being made."""

    arrays: dict[str, Array]
    parts: list[Future[None]]

    @property
    def done(self) -> bool:
        return all(part.done() for part in self.parts)

    def result(self) -> dict[str, Array]:
        for part in self.parts:
            part.result()
        return self.arrays


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not there, or no folder; expected a folder of images")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise DataError(f"{folder} has no images, expected files like {', '.join(sorted(SUFFIXES))}")
    return sorted(found)
