"""Text of the files that run a model repository on Kubernetes: plain manifests, KServe's, a Dockerfile."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redline.core.errors import InputError
from redline.deployment.texts import TEMPLATES

Server = Literal["redline", "triton"]
#: Triton's image; a TensorRT plan needs the one whose TensorRT built it.
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.09-py3"
MODELS = "/models"
PORT = 8000
_USER = 10001
_SPARE_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One server of one model repository.

    Attributes:
        name: Of the Kubernetes objects; letters, digits and hyphens.
        server: ``redline`` runs ``redline serve``; ``triton`` NVIDIA's server, for TensorRT plans.
        cores: That each replica asks for.
        memory_bytes: That each replica asks for.
        gpus: That each replica asks for.
        max_replicas: The most that the autoscaler starts.
        drain_delay_s: How long a replica that was told to stop still answers new requests, until no load balancer
            sends it any.
        drain_timeout_s: How long what is in flight may take after that; 30 s is what ``redline serve`` gives it.
        start_s: How long a replica may take until it is ready.
    """

    name: str
    server: Server = "redline"
    cores: int = 2
    memory_bytes: int = 1 << 30
    gpus: int = 0
    max_replicas: int = 8
    drain_delay_s: int = 10
    drain_timeout_s: int = 30
    start_s: int = 300

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?", self.name):
            raise InputError(
                f"got the Kubernetes name {self.name!r}, expected lower-case letters, digits and hyphens, at most 53, "
                "a letter first"
            )
        for name, value in (("cores", self.cores), ("memory_bytes", self.memory_bytes), ("start_s", self.start_s)):
            if value < 1:
                raise InputError(f"{name} is {value}, expected at least 1")

    @property
    def image(self) -> str:
        """What the Dockerfile is built as; whoever pushes it to a registry names that one."""
        return f"{self.name}:1"

    @property
    def grace_s(self) -> int:
        """From the order to stop until the kill."""
        return self.drain_delay_s + self.drain_timeout_s + _SPARE_S

    def command(self, models: str, port: int) -> list[str]:
        """What the container runs."""
        if self.server == "triton":
            timeout = f"--exit-timeout-secs={self.drain_timeout_s}"
            return [
                "tritonserver",
                f"--model-repository={models}",
                f"--http-port={port}",
                "--allow-grpc=false",
                timeout,
            ]
        address = ["--host", "0.0.0.0", "--port", str(port)]  # noqa: S104 (a Service decides who reaches the pod)
        how = ["--instances", str(self.cores), "--drain-delay", str(self.drain_delay_s)]
        return ["redline", "serve", models, *address, *how]


def kubernetes_name(text: str) -> str:
    """A name that Kubernetes takes, out of any text.

    >>> kubernetes_name("My_Models.v2"), kubernetes_name("42")
    ('my-models-v2', 'redline-42')
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return name if name[:1].isalpha() else f"redline-{name}".rstrip("-")


def memory_for(size_bytes: Sequence[int], *, instances: int = 1) -> int:
    """Bytes to ask for, given the sizes of the model files: room for the runtime, for each copy and for a reload."""
    return (1 << 29) + 3 * sum(size_bytes) * max(1, instances)


def dockerfile(workload: Workload) -> str:
    """The Dockerfile; the folder that holds it is what it copies."""
    return render("Dockerfile", workload, models=MODELS, command=json.dumps(workload.command(MODELS, PORT)))


#: What of the repository's folder does not belong into the image.
DOCKERIGNORE = "Dockerfile\n.dockerignore\n*.yaml\nREADME.md\n**/*.partial\n"


def manifests(workload: Workload) -> str:
    """A Deployment, its Service and its HorizontalPodAutoscaler, as one YAML text."""
    return render("kubernetes.yaml", workload, image=json.dumps(workload.image))


def kserve(workload: Workload, storage_uri: str) -> str:
    """A ServingRuntime and an InferenceService of KServe, as one YAML text.

    Args:
        workload: What to run.
        storage_uri: Where KServe finds the repository: ``pvc://claim/path``, ``s3://bucket/path``.
    """
    return render(
        "kserve.yaml",
        workload,
        image=json.dumps(TRITON_IMAGE if workload.server == "triton" else workload.image),
        command=json.dumps(workload.command("/mnt/models", 8080)),
        storage=json.dumps(storage_uri),
    )


def render(name: str, workload: Workload, **values: object) -> str:
    """The text of a template for a workload; ``values`` are what else it names."""
    known = {"triton": TRITON_IMAGE, "port": PORT, "user": _USER}
    return TEMPLATES.get_template(f"{name}.j2").render(**known, **values, workload=workload)
