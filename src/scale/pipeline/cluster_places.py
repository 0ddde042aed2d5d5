"""Where workers can run in a cluster: on each GPU where there are any, else on the cores of each machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from redline.core.errors import DeviceError, InputError

DEVICES = ("auto", "cpu", "cuda")


class RayNode(TypedDict):
    """What is used of a machine as ``ray.nodes()`` tells it."""

    NodeID: str
    NodeManagerHostname: str
    Alive: bool
    Resources: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlace:
    """A part of a machine that one worker has to itself.

    Attributes:
        node: Of Ray, the whole number.
        host: The machine's name.
        number: Among the places of the machine.
        cores: That are the worker's.
        gpu: Whether a GPU is.
    """

    node: str
    host: str
    number: int
    cores: int
    gpu: bool

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.host} (node {self.node[:8]}{f', {self.number}' if self.number else ''})"

    def demands(self) -> dict[str, int]:
        """What Ray is asked for; a worker with a GPU is not kept waiting for cores."""
        return {"num_gpus": 1, "num_cpus": 0} if self.gpu else {"num_gpus": 0, "num_cpus": self.cores}


def wants_gpus(nodes: Sequence[RayNode], device: str) -> bool:
    """Whether workers run on GPUs.

    Args:
        nodes: The machines, as ``ray.nodes()`` tells them.
        device: ``cuda`` takes GPUs alone, ``cpu`` cores alone, ``auto`` GPUs where the cluster has any.

    Raises:
        DeviceError: ``cuda`` is asked for, and there is no GPU.
        InputError: there is no such device in a cluster.
    """
    if device not in DEVICES:
        raise InputError(f"got device {device!r}; on a cluster Ray gives out the GPUs: expected {', '.join(DEVICES)}")
    found = any(node["Alive"] and node["Resources"].get("GPU", 0) >= 1 for node in nodes)
    if device == "cuda" and not found:
        raise DeviceError("the cluster has no GPU; take --device auto or cpu")
    return found and device != "cpu"


def places_of(nodes: Sequence[RayNode], *, gpus: bool, threads: int) -> list[ClusterPlace]:
    """The places of the machines that are alive.

    Args:
        nodes: The machines, as ``ray.nodes()`` tells them.
        gpus: Whether workers run on GPUs.
        threads: How many cores a worker without a GPU has; 0 takes all of a machine.
    """
    alive = [node for node in nodes if node["Alive"]]
    return [place for node in alive for place in (_gpus(node) if gpus else _cores(node, threads))]


def _gpus(node: RayNode) -> list[ClusterPlace]:
    count = int(node["Resources"].get("GPU", 0))
    cores = int(node["Resources"].get("CPU", 0))
    return [_place(node, n, max(1, cores // count), gpu=True) for n in range(count)]


def _cores(node: RayNode, threads: int) -> list[ClusterPlace]:
    cores = int(node["Resources"].get("CPU", 0))
    each = min(threads or cores, cores)
    return [_place(node, n, each, gpu=False) for n in range(cores // each)] if cores else []


def _place(node: RayNode, number: int, cores: int, *, gpu: bool) -> ClusterPlace:
    return ClusterPlace(node=node["NodeID"], host=node["NodeManagerHostname"], number=number, cores=cores, gpu=gpu)
