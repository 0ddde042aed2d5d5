"""The groups of a grid spread over the machines of a Ray cluster; each group runs on one machine from end to end."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from redline.backends.nvidia import find_gpus
from redline.core.errors import DeviceError
from redline.core.files import stem_of, write_whole
from redline.core.ray_cluster import ray_at
from redline.measurement.environment import fingerprint
from redline.study.config import StudyConfig
from redline.study.describe import Description, ModelAt
from redline.study.files import Shelf, Workshop
from redline.study.group import Choose, GroupRun, Orders
from redline.study.plan import CellGroup
from redline.study.records import CellEnded, Machine, ModelFile, Node, Record, Run, Size

_ATTEMPTS = 3
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Slot:
    """A machine, or one GPU of it, that runs one group at a time."""

    node: str
    number: int


class Cluster:
    """A connection to a Ray cluster; groups run one at a time on each machine, or on each GPU of a machine."""

    def __init__(self, address: str, config: StudyConfig) -> None:
        """Connect.

        Args:
            address: As ``ray start`` printed it; ``local`` starts a cluster of this machine alone; ``auto`` takes the
                one that runs here.
            config: The grid.

        Raises:
            MissingDependencyError: Ray is not installed.
            DeviceError: the cluster does not answer.
        """
        self._connection = ExitStack()
        self._ray: Any = self._connection.enter_context(ray_at(address))
        self._config = config

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def measure(
        self,
        work: Sequence[tuple[CellGroup, Sequence[Record]]],
        models: Mapping[str, Mapping[Size, ModelAt]],
        run: Run,
        choose: Choose | None,
        keep: Callable[[CellGroup, Sequence[Record]], None],
    ) -> None:
        """Run every group somewhere, and hand its records over when it is finished.

        Where a machine dies its group runs again from the start on another, so that what is compared was measured in
        one place. After three deaths its cells have failed.

        Args:
            work: Groups with what is known of each.
            models: By name and size.
            run: The study's first record.
            choose: Who of a group is measured again.
            keep: Called with a group and its new records.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        waiting = deque(work)
        attempts: dict[str, int] = {}
        running: dict[Any, tuple[tuple[CellGroup, Sequence[Record]], _Slot]] = {}
        remote = self._ray.remote(max_retries=0)(measure_group)
        on_gpu = "cuda" in self._config.devices
        shared = {
            (name, size): self._ray.put(_portable(model))
            for name, sizes in models.items()
            for size, model in sizes.items()
        }
        while waiting or running:
            busy = {slot for _, slot in running.values()}
            free = [slot for slot in self._slots() if slot not in busy]
            if not free and not running:
                raise DeviceError(f"the cluster has no machine with {' and '.join(self._config.devices)} left")
            for slot in free[: len(waiting)]:
                group, past = waiting.popleft()
                order = _Order(self._config, group, tuple(past), run, choose, slot.node)
                # A machine runs one group at a time anyway: asking for its cores would only keep small machines out.
                place = NodeAffinitySchedulingStrategy(slot.node, soft=False)
                demanded = remote.options(scheduling_strategy=place, num_cpus=0, num_gpus=int(on_gpu))
                task = demanded.remote(order, shared[group.model, group.size])
                running[task] = ((group, past), slot)
            finished, _ = self._ray.wait(list(running), num_returns=1, timeout=_POLL_S)
            for task in finished:
                (group, past), _slot = running.pop(task)
                try:
                    keep(group, self._ray.get(task))
                except self._ray.exceptions.RayError as error:
                    attempts[group.title] = attempts.get(group.title, 0) + 1
                    if attempts[group.title] < _ATTEMPTS:
                        waiting.append((group, past))
                    else:
                        keep(group, _lost(group, error))

    def _slots(self) -> list[_Slot]:
        """Where a group can run now: machines come and go."""
        gpus = "cuda" in self._config.devices
        return [
            _Slot(node["NodeID"], number)
            for node in self._ray.nodes()
            if node["Alive"] and (not gpus or node["Resources"].get("GPU"))
            for number in range(int(node["Resources"].get("GPU", 1)) if gpus else 1)
        ]


@dataclass(frozen=True, slots=True)
class _Order:
    """What another machine is to measure."""

    config: StudyConfig
    group: CellGroup
    past: tuple[Record, ...]
    run: Run
    choose: Choose | None
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Portable:
    """A model with the bytes of its weights, for a machine that shares no disk with this one."""

    key: str
    name: str
    size: Size
    ref: ModelFile | None
    description: Description
    file: str | None
    content: bytes


def measure_group(order: _Order, model: _Portable) -> list[Record]:
    """Measure one group on this machine; called by Ray.

    Returns:
        Its records, the machine's conditions first.
    """
    root = Path(tempfile.gettempdir()) / f"redline-{model.key}"
    here = _unpacked(model, root)
    folder = root / stem_of(model.name) / "x".join(map(str, model.size))
    folder.mkdir(parents=True, exist_ok=True)
    gpus = find_gpus().gpus if "cuda" in order.config.devices else ()
    name = order.node[:8]
    records: list[Record] = [Node(node=name, machine=Machine(environment=fingerprint(), gpus=gpus))]
    shelf = Shelf(root=root, folder=folder, whole=lambda _: None, keep=lambda _: None)
    orders = Orders(run=order.run, config=order.config, choose=order.choose, say=_nothing, took=_nothing)
    workshop = Workshop(here, order.config, shelf)
    try:
        found = list(GroupRun(order.group, workshop, orders, order.past).records())
    finally:
        workshop.close()
    return [*records, *(replace(record, node=name) if isinstance(record, CellEnded) else record for record in found)]


def _nothing(_: object) -> None:
    return


def _lost(group: CellGroup, error: Exception) -> list[Record]:
    reason = f"{type(error).__name__} on {_ATTEMPTS} machines: {str(error).strip().splitlines()[-1]}"
    return [cell.ended("failed", stage="measure", reason=reason) for cell in group.cells]


def _portable(model: ModelAt) -> _Portable:
    file = model.weights or (Path(model.name) if model.ref is None else None)
    sha256 = model.record(Path()).sha256
    return _Portable(
        key=str(sha256 or "model")[:16],
        name=model.name,
        size=model.size,
        ref=model.ref,
        description=model.description,
        file=file.name if file is not None else None,
        content=file.read_bytes() if file is not None else b"",
    )


def _unpacked(model: _Portable, folder: Path) -> ModelAt:
    file = folder / model.file if model.file else None
    if file is not None and not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, model.content)
    return ModelAt(
        name=model.name,
        size=model.size,
        ref=model.ref,
        weights=file if model.ref is not None else None,
        description=model.description,
        file=file if model.ref is None else None,
    )
