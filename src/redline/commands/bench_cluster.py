"""The groups of a grid spread over the machines of a Ray cluster; each group runs on one machine from end to end."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from redline.backends.nvidia import find_gpus
from redline.commands.bench_group import Done, GroupBench
from redline.commands.bench_workshop import ModelAt, Models, Workshop
from redline.core.errors import DeviceError
from redline.core.files import write_whole
from redline.core.ray_cluster import ray_at
from redline.grid.cells import Group, Size, group_cells, plan_cells
from redline.grid.config import GridConfig, from_mapping
from redline.measurement.environment import fingerprint
from redline.measurement.results import Record

_ATTEMPTS = 3
_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class _Place:
    """A machine, or one GPU of it, that runs one group at a time."""

    node: str
    number: int


class Cluster:
    """A connection to a Ray cluster; groups run one at a time on each machine, or on each GPU of a machine."""

    def __init__(self, address: str, config: GridConfig) -> None:
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
        self, groups: Sequence[Group], models: Models, done: Done, keep: Callable[[Group, list[Record]], None]
    ) -> None:
        """Run every group somewhere, and hand its records over when it is finished.

        Where a machine dies its group runs again from the start on another, so that what is compared was measured in
        one place. After three deaths its cells have failed.
        """
        waiting = deque(groups)
        attempts: dict[str, int] = {}
        running: dict[Any, tuple[Group, _Place]] = {}
        remote = self._ray.remote(max_retries=0)(measure_group)
        shared = {key: self._ray.put(_portable(model)) for key, model in _flat(models)}
        while waiting or running:
            busy = {place for _, place in running.values()}
            free = [place for place in self._places() if place not in busy]
            if not free and not running:
                raise DeviceError(f"the cluster has no machine with {' and '.join(self._config.devices)} left")
            for place in free[: len(waiting)]:
                group = waiting.popleft()
                work = [self._config.settings(), shared[group.model, group.size], group.batch, asdict(done), place.node]
                running[remote.options(**self._demands(place)).remote(*work)] = (group, place)
            finished, _ = self._ray.wait(list(running), num_returns=1, timeout=_POLL_S)
            for task in finished:
                group, _place = running.pop(task)
                self._finish(task, group, waiting, attempts, keep)

    def _finish(
        self,
        task: Any,
        group: Group,
        waiting: deque[Group],
        attempts: dict[str, int],
        keep: Callable[[Group, list[Record]], None],
    ) -> None:
        try:
            keep(group, self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            attempts[group.title] = attempts.get(group.title, 0) + 1
            if attempts[group.title] < _ATTEMPTS:
                waiting.append(group)
                return
            reason = f"{type(error).__name__} on {_ATTEMPTS} machines: {str(error).strip().splitlines()[-1]}"
            told = {"outcome": "failed", "stage": "measure", "reason": reason, "node": None}
            keep(group, [{"kind": "cell", **cell.fields(), **told} for cell in group.cells])

    def _places(self) -> list[_Place]:
        """Where a group can run now: machines come and go."""
        gpus = "cuda" in self._config.devices
        return [
            _Place(node["NodeID"], number)
            for node in self._ray.nodes()
            if node["Alive"] and (not gpus or node["Resources"].get("GPU"))
            for number in range(int(node["Resources"].get("GPU", 1)) if gpus else 1)
        ]

    def _demands(self, place: _Place) -> dict[str, Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        demands: dict[str, Any] = {"scheduling_strategy": NodeAffinitySchedulingStrategy(place.node, soft=False)}
        # A machine runs one group at a time anyway: asking for its cores would only keep small machines out.
        return {**demands, "num_cpus": 0, "num_gpus": 1 if "cuda" in self._config.devices else 0}


def measure_group(
    settings: Mapping[str, Any], model: Mapping[str, Any], batch: int, done: Mapping[str, Any], node: str
) -> list[Record]:
    """Measure one group on this machine; called by Ray.

    Returns:
        Its records, the machine's conditions first.
    """
    config = from_mapping(settings)
    folder = Path(tempfile.gettempdir()) / f"redline-{model['key']}"
    here = _unpacked(model, folder)
    cells = plan_cells(config, {here.name: (here.size,)})
    group = next(
        group
        for group in group_cells(cells, config.seed)
        if (group.model, group.size, group.batch) == (here.name, here.size, batch)
    )
    name = node[:8]
    gpus = find_gpus().gpus if "cuda" in config.devices else ()
    environment = {**fingerprint().to_json(), "gpus": [asdict(gpu) for gpu in gpus]}
    records: list[Record] = [{"kind": "node", "node": name, "environment": environment}]
    workshop = Workshop(here, config, folder, config.threads)
    finished = Done(**{key: frozenset(value) for key, value in done.items()})
    found = GroupBench(group, workshop, config, finished, lambda _: None).records()
    return [*records, *({**record, "node": name} if record["kind"] == "cell" else record for record in found)]


def _flat(models: Models) -> list[tuple[tuple[str, Size], ModelAt]]:
    return [((name, size), model) for name, sizes in models.items() for size, model in sizes.items()]


def _portable(model: ModelAt) -> dict[str, Any]:
    """A model with the bytes of its weights, for a machine that shares no disk with this one."""
    file = model.weights or (Path(model.name) if model.ref is None else None)
    content = file.read_bytes() if file is not None else b""
    identity = model.identity()
    return {
        "key": str(identity["sha256"] or "model")[:16],
        "name": model.name,
        "size": list(model.size),
        "ref": model.ref,
        "description": model.description,
        "file": file.name if file is not None else None,
        "content": content,
    }


def _unpacked(model: Mapping[str, Any], folder: Path) -> ModelAt:
    file = folder / model["file"] if model["file"] else None
    if file is not None and not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, model["content"])
    return ModelAt(
        name=model["name"],
        size=(model["size"][0], model["size"][1]),
        ref=model["ref"],
        weights=file if model["ref"] is not None else None,
        description=model["description"],
        file=file if model["ref"] is None else None,
    )
