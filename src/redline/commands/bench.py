"""Bench: measure a grid of models, backends, precisions, devices, loaders, batches and image sizes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock

from redline import __version__
from redline.backends.nvidia import find_gpus
from redline.commands.bench_group import Done, GroupBench, openers
from redline.commands.bench_inputs import SHIPPED
from redline.commands.bench_workshop import ModelAt, Models, Workshop, describe_at
from redline.commands.ceilings import measure_cpu, measure_gpu
from redline.commands.ways import reason_against
from redline.core.errors import BusyError, InputError, WorkerError
from redline.core.processes import command_line
from redline.data.images import SUFFIXES
from redline.grid.cells import Cell, Group, Size, baseline_of, expected_s, group_cells, plan_cells
from redline.grid.config import GridConfig
from redline.grid.rows import GridStudy, read_grid
from redline.measurement.environment import Environment, comparable, fingerprint, noise_check, usable_cores
from redline.measurement.latency import clock_resolution_s, harness_overhead_s
from redline.measurement.results import FORMAT, Record, ResultsFile

Listener = Callable[[str, float, float], None]
#: What the results call this machine.
NODE = "here"


def bench(
    config: GridConfig,
    out: str | Path,
    *,
    resume: bool = False,
    cluster: str | None = None,
    listener: Listener | None = None,
) -> GridStudy:
    """Measure every cell of a grid and keep every raw sample.

    ``out`` is a results file to which each window is appended and flushed as it is measured, so that a run which is
    killed at any moment goes on with ``resume`` where it stopped. Model files and engines lie beside it in
    ``<name>.files``. A cell that cannot run is a row with the reason.

    Args:
        config: The grid.
        out: The results file, ``.jsonl``.
        resume: Go on with an interrupted run of the same grid on the same machine.
        cluster: Spread the groups over the machines of a Ray cluster: its address, or ``local`` for this machine as a
            cluster of its own.
        listener: Called with (what is being done, expected seconds done, expected seconds in all).

    Raises:
        InputError: the file holds another run, or no model can be loaded; says what to do.
        BusyError: another process writes the file.
    """
    out = Path(out)
    if out.suffix != ".jsonl":
        raise InputError(f"got {out.name}, expected a results file that ends in .jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise BusyError(f"{out} is being written by another run; wait for it or take another file") from error
    try:
        with ResultsFile(out) as results:
            _Bench(config, results, listener, cluster).run(resume=resume)
    finally:
        if out.is_file() and not out.stat().st_size:
            out.unlink()
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
    return read_grid(out)


def dry_run(config: GridConfig) -> tuple[tuple[Cell, ...], float]:
    """The cells of a grid and about how many seconds they take; nothing is loaded or measured."""
    cells = plan_cells(config)
    return cells, sum(expected_s(group, config) for group in group_cells(cells, config.seed))


class _Bench:
    def __init__(
        self, config: GridConfig, results: ResultsFile, listener: Listener | None, cluster: str | None
    ) -> None:
        self._results, self._listener, self._cluster = results, listener, cluster
        self._folder = results.path.with_suffix(".files")
        self._environment = fingerprint(noise=noise_check())
        self._threads = config.threads or usable_cores(self._environment)
        self._config = replace(config, threads=self._threads)
        self._done_s = self._total_s = 0.0

    def run(self, *, resume: bool) -> None:
        self._check(resume=resume)
        self._say("load the models")
        models, refused = self._models()
        cells = plan_cells(self._config, {name: tuple(sizes) or ((0, 0),) for name, sizes in models.items()})
        groups = group_cells(cells, self._config.seed)
        self._total_s = sum(expected_s(group, self._config) for group in groups)
        if not self._results.records:
            self._results.append(self._run_record(models, len(cells)))
            if self._cluster is None:
                self._results.append({"kind": "node", "node": NODE, "environment": self._described()})
        done = done_of(self._results.records)
        open_groups = []
        for group in groups:
            if all(cell.id in done.cells for cell in group.cells):
                self._done_s += expected_s(group, self._config)
            elif reason := refused.get((group.model, group.size)):
                self._refuse(group, reason, done)
            else:
                open_groups.append(group)
        if self._cluster is None:
            self._measure_here(open_groups, models)
        else:
            self._measure_elsewhere(self._cluster, open_groups, models)

    def _refuse(self, group: Group, reason: str, done: Done) -> None:
        for cell in group.cells:
            if cell.id not in done.cells:
                told = {"outcome": "failed", "stage": "load", "reason": reason, "node": NODE}
                self._results.append({"kind": "cell", **cell.fields(), **told})

    def _measure_here(self, groups: Sequence[Group], models: Models) -> None:
        workshops = self._prepared(groups, models)
        for group in groups:
            workshop = workshops[group.model, group.size]
            done = done_of(self._results.records)
            for record in GroupBench(group, workshop, self._config, done, self._say).records():
                self._results.append({**record, "node": NODE} if record["kind"] == "cell" else record)
            self._done_s += expected_s(group, self._config)
        # Last, as it is the longest step that cannot go on from its middle.
        self._measure_ceilings()

    def _prepared(self, groups: Sequence[Group], models: Models) -> dict[tuple[str, Size], Workshop]:
        """What each model at each size needs: its files, made before anything is measured, and its multiply-adds."""
        at = {(group.model, group.size): group.cells for group in groups}
        shops = {
            (name, size): Workshop(models[name][size], self._config, self._folder, self._threads) for name, size in at
        }
        self._say(f"make the model files of {len(shops)} models and sizes")
        known = {
            (record["model"], tuple(record["size"])) for record in self._results.records if record["kind"] == "macs"
        }
        interpreters = dict(self._config.interpreters)
        with ThreadPoolExecutor(openers()) as pool:
            counted = {
                key: pool.submit(_prepare, shop, at[key], interpreters, count=key not in known)
                for key, shop in shops.items()
            }
            for (name, size), macs in counted.items():
                if macs.result() is not None:
                    about = {"kind": "macs", "model": name, "size": list(size)}
                    self._results.append({**about, "macs_per_sample": macs.result()})
        return shops

    def _measure_elsewhere(self, address: str, groups: Sequence[Group], models: Models) -> None:
        from redline.commands.bench_cluster import Cluster

        def keep(group: Group, records: list[Record]) -> None:
            known = {record["node"] for record in self._results.records if record["kind"] == "node"}
            for record in records:
                if record["kind"] != "node" or record["node"] not in known:
                    self._results.append(record)
            self._done_s += expected_s(group, self._config)
            self._say(f"{group.title}: done on {records[0]['node']}" if records else group.title)

        done = done_of(self._results.records)
        with Cluster(address, self._config) as cluster:
            cluster.measure(groups, models, done, keep)

    def _models(self) -> tuple[dict[str, dict[Size, ModelAt]], dict[tuple[str, Size], str]]:
        """Each model at each size; a pair that cannot be loaded is there with the reason."""
        found: dict[str, dict[Size, ModelAt]] = {}
        refused: dict[tuple[str, Size], str] = {}
        for name in self._config.models:
            found[name] = {}
            for size, model in self._described_at_each_size(name):
                if isinstance(model, WorkerError):
                    refused[name, size or (0, 0)] = str(model)
                else:
                    found[name][model.size] = model
        if not any(found.values()):
            raise InputError(f"no model can be loaded: {'; '.join(dict.fromkeys(refused.values()))}")
        return found, refused

    def _described_at_each_size(self, name: str) -> Iterator[tuple[Size | None, ModelAt | WorkerError]]:
        def at(size: Size | None) -> tuple[Size | None, ModelAt | WorkerError]:
            try:
                return size, describe_at(name, size, self._folder, self._threads)
            except WorkerError as error:
                return size, error

        waiting = deque(self._config.sizes or (None,))
        while waiting:
            size, model = at(waiting.popleft())
            yield size, model
            if isinstance(model, ModelAt):
                break  # it saved the weights, which the others load
        with ThreadPoolExecutor(openers()) as pool:
            yield from pool.map(at, waiting)

    def _check(self, *, resume: bool) -> None:
        """Refuse to mix runs: another grid, another machine, other versions."""
        records = self._results.records
        if not records:
            shutil.rmtree(self._folder, ignore_errors=True)
            return
        path = self._results.path
        if not resume:
            raise InputError(f"{path} holds a run already; go on with it by --resume, or take another file")
        old = records[0]
        if old.get("purpose") != "bench" or old.get("format") != FORMAT:
            raise InputError(f"{path} is not a grid that this Redline can go on with; take another file")
        changed = [
            f"another {key} ({old['settings'].get(key)!r}, now {value!r})"
            for key, value in self._settings().items()
            if old["settings"].get(key) != value
        ]
        changed += comparable(Environment.from_json(old["environment"]), self._environment)
        changed += _gpu_changes(old["environment"], self._described())
        if changed:
            raise InputError(
                f"{path} holds a run with {'; '.join(changed)}; resume with the same, or take another file"
            )

    def _settings(self) -> dict[str, Any]:
        baselines = {device: baseline_of(self._config, device) for device in self._config.devices}
        names = {device: variant.name for device, variant in baselines.items() if variant is not None}
        variants = dict.fromkeys(cell.variant.name for cell in plan_cells(self._config))
        asked = {"baseline": names, "baseline_asked": self._config.baseline, "variants": list(variants)}
        return {**self._config.settings(), **asked}

    def _described(self) -> dict[str, Any]:
        gpus = find_gpus().gpus if "cuda" in self._config.devices else ()
        return {**self._environment.to_json(), "gpus": [asdict(gpu) for gpu in gpus]}

    def _run_record(self, models: Models, cells: int) -> Record:
        return {
            "kind": "run",
            "format": FORMAT,
            "purpose": "bench",
            "run_id": uuid.uuid4().hex,
            "redline": __version__,
            "command": command_line("redline.bench(…)"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": self._config.name or ", ".join(self._config.models),
            "cells": cells,
            "settings": self._settings(),
            "models": [next(iter(sizes.values())).identity() for sizes in models.values() if sizes],
            "commit": _commit(),
            "data": self._data(),
            "environment": self._described(),
            "clock": {"resolution_s": clock_resolution_s(), "overhead_s": harness_overhead_s()},
        }

    def _data(self) -> dict[str, Any]:
        if "real" not in self._config.loaders:
            return {"source": None, "images": 0, "warning": None}
        folder = Path(self._config.data) if self._config.data else SHIPPED
        images = sum(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")) if folder.is_dir() else 0
        source = str(folder) if self._config.data else "photographs that ship with Redline"
        return {"source": source, "images": images, "warning": None}

    def _measure_ceilings(self) -> None:
        kinds = {(record["kind"], record.get("device")) for record in self._results.records}
        for device in self._config.devices:
            if ("bandwidth", device) in kinds or (device == "cuda" and not find_gpus().gpus):
                continue
            self._say("measure this machine's limits")
            with tempfile.TemporaryDirectory() as scratch:
                here = Path(scratch)
                measured = measure_cpu(here, self._threads) if device == "cpu" else measure_gpu(self._threads)
            for record in measured:
                self._results.append({**record, "device": device})

    def _say(self, text: str) -> None:
        if self._listener:
            self._listener(text, self._done_s, self._total_s)


def _prepare(workshop: Workshop, cells: Sequence[Cell], interpreters: Mapping[str, str], *, count: bool) -> int | None:
    macs = workshop.macs() if count else None
    variants = {cell.variant.name: cell.variant for cell in cells if cell.refused is None}.values()
    workshop.prepare(v for v in variants if reason_against(v, interpreters.get(v.backend, "")) is None)
    return macs


def done_of(records: list[Record]) -> Done:
    """What is finished, from the records."""

    def of(kind: str) -> Iterator[Record]:
        return (record for record in records if record["kind"] == kind)

    return Done(
        cells=frozenset(record["cell"] for record in of("cell")),
        rounds=frozenset((record["cell"], record["repeat"], record["round"]) for record in of("samples")),
        processes=frozenset((record["cell"], record["repeat"]) for record in of("process")),
        variants=frozenset(
            (record["model"], "x".join(map(str, record["size"])), record["device"], record["variant"])
            for record in of("agreement")
        ),
    )


def _gpu_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = ([f"{gpu['name']}, driver {gpu['driver']}" for gpu in e.get("gpus", ())] for e in (old, new))
    return [] if before == after else [f"other GPUs ({'; '.join(before) or 'none'}, now {'; '.join(after) or 'none'})"]


def _commit() -> str | None:
    """The commit of this Redline where it runs from a checkout; ends in ``-dirty`` where that was changed since."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    told = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None
