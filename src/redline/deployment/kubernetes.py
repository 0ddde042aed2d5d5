"""Text of the files that run a model repository on Kubernetes: plain manifests, KServe's, a Dockerfile."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redline.core.errors import InputError

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
            return [
                "tritonserver",
                f"--model-repository={models}",
                f"--http-port={port}",
                "--allow-grpc=false",
                f"--exit-timeout-secs={self.drain_timeout_s}",
            ]
        return [
            "redline",
            "serve",
            models,
            "--host",
            "0.0.0.0",  # noqa: S104 (within the pod; a Service decides who reaches it)
            "--port",
            str(port),
            "--instances",
            str(self.cores),
            "--drain-delay",
            str(self.drain_delay_s),
        ]


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
    if workload.server == "triton":
        return _TRITON_DOCKERFILE.format(
            image=TRITON_IMAGE, name=workload.image, models=MODELS, command=json.dumps(workload.command(MODELS, PORT))
        )
    return _DOCKERFILE.format(
        name=workload.image,
        user=_USER,
        models=MODELS,
        port=PORT,
        command=json.dumps(workload.command(MODELS, PORT)),
    )


#: What of the repository's folder does not belong into the image.
DOCKERIGNORE = "Dockerfile\n.dockerignore\n*.yaml\nREADME.md\n**/*.partial\n"


def manifests(workload: Workload) -> str:
    """A Deployment, its Service and its HorizontalPodAutoscaler, as one YAML text."""
    lifecycle = _TRITON_LIFECYCLE.format(delay=workload.drain_delay_s) if workload.server == "triton" else ""
    metrics_port, queue = _METRICS[workload.server]
    return _MANIFESTS.format(
        name=workload.name,
        image=json.dumps(workload.image),
        port=PORT,
        user=_USER,
        grace=workload.grace_s,
        stops=_STOPS[workload.server].format(delay=workload.drain_delay_s, timeout=workload.drain_timeout_s),
        lifecycle=lifecycle,
        metrics_port=metrics_port,
        queue=queue,
        resources=_indented(_resources(workload), 12),
        failures=math.ceil(workload.start_s / 2),
        max_replicas=workload.max_replicas,
    )


def kserve(workload: Workload, storage_uri: str) -> str:
    """A ServingRuntime and an InferenceService of KServe, as one YAML text.

    Args:
        workload: What to run.
        storage_uri: Where KServe finds the repository: ``pvc://claim/path``, ``s3://bucket/path``.
    """
    return _KSERVE.format(
        name=workload.name,
        image=json.dumps(TRITON_IMAGE if workload.server == "triton" else workload.image),
        command=json.dumps(workload.command("/mnt/models", 8080)),
        format="triton" if workload.server == "triton" else "onnx",
        storage=json.dumps(storage_uri),
        user=_USER,
        grace=workload.grace_s,
        failures=math.ceil(workload.start_s / 2),
        resources=_indented(_resources(workload), 8),
        max_replicas=workload.max_replicas,
    )


def _resources(workload: Workload) -> str:
    memory = f"{math.ceil(workload.memory_bytes / (1 << 20))}Mi"
    gpu = f'  nvidia.com/gpu: "{workload.gpus}"\n' if workload.gpus else ""
    cpu = f'  cpu: "{workload.cores}"\n'
    return f"requests:\n{cpu}  memory: {memory}\n{gpu}limits:\n{cpu}  memory: {memory}\n{gpu}".rstrip("\n")


def _indented(text: str, columns: int) -> str:
    return text.replace("\n", "\n" + " " * columns)


_DOCKERFILE = """\
# docker build -t {name} .
FROM python:3.11-slim
# Where Redline is on no index that you use: COPY its wheel and install that, with [serve] behind the file's name.
RUN pip install --no-cache-dir 'redline[serve]' \\
    && useradd --uid {user} --no-create-home --shell /usr/sbin/nologin redline
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY . {models}
USER {user}
EXPOSE {port}
CMD {command}
"""

_TRITON_DOCKERFILE = """\
# docker build -t {name} .
# A plan runs only on the TensorRT that built it: take the tag that has this one.
FROM {image}
COPY . {models}
CMD {command}
"""

_STOPS: dict[Server, str] = {
    "redline": """\
# On SIGTERM the server is not ready but answers {delay} s more (--drain-delay), while load balancers forget it.
      # Then it has {timeout} s for what is in flight. So it needs no preStop hook.""",
    "triton": """\
# The preStop hook keeps it answering {delay} s while load balancers forget it. Then comes SIGTERM, and it has
      # {timeout} s for what is in flight.""",
}

# Where each server's metrics are, and which of them is the length of its queue.
_METRICS: dict[Server, tuple[int, str]] = {
    "redline": (PORT, "redline_queue_depth"),
    "triton": (8002, "nv_inference_pending_request_count"),
}

_TRITON_LIFECYCLE = """
          lifecycle:
            preStop:
              exec:
                command: ["sleep", "{delay}"]"""

_MANIFESTS = """\
# kubectl apply -f kubernetes.yaml
# The image is what the Dockerfile beside this file makes: push it to your registry and name it there.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
    app.kubernetes.io/component: model-server
spec:
  # No replicas here: the autoscaler below owns that number.
  selector:
    matchLabels:
      app.kubernetes.io/name: {name}
  strategy:
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: {name}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/path: /metrics
        prometheus.io/port: "{metrics_port}"
    spec:
      {stops}
      terminationGracePeriodSeconds: {grace}
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {user}
        fsGroup: {user}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: server
          image: {image}
          ports:
            - name: http
              containerPort: {port}
          startupProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 2
            failureThreshold: {failures}
          readinessProbe:
            httpGet:
              path: /v2/health/ready
              port: http
            periodSeconds: 2
            timeoutSeconds: 2
            failureThreshold: 2
          livenessProbe:
            httpGet:
              path: /v2/health/live
              port: http
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3{lifecycle}
          resources:
            {resources}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: ["ALL"]
          volumeMounts:
            - name: scratch
              mountPath: /tmp
      volumes:
        - name: scratch
          emptyDir: {{}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels:
    app.kubernetes.io/name: {name}
spec:
  selector:
    app.kubernetes.io/name: {name}
  ports:
    - name: http
      port: 80
      targetPort: http
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {name}
  minReplicas: 1
  maxReplicas: {max_replicas}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
    # Where Prometheus and its adapter serve custom metrics, the length of the queue says more than the CPU does:
    # - type: Pods
    #   pods:
    #     metric:
    #       name: {queue}
    #     target:
    #       type: AverageValue
    #       averageValue: "4"
"""

_KSERVE = """\
# kubectl apply -f kserve.yaml
# storageUri is where you put the folder of models: KServe copies it to /mnt/models before the server starts.
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: {name}
spec:
  supportedModelFormats:
    - name: {format}
      version: "1"
      autoSelect: false
  protocolVersions:
    - v2
  containers:
    - name: kserve-container
      image: {image}
      command: {command}
      ports:
        - containerPort: 8080
          protocol: TCP
      startupProbe:
        httpGet:
          path: /v2/health/ready
          port: 8080
        periodSeconds: 2
        failureThreshold: {failures}
      readinessProbe:
        httpGet:
          path: /v2/health/ready
          port: 8080
        periodSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet:
          path: /v2/health/live
          port: 8080
        periodSeconds: 10
        timeoutSeconds: 5
      resources:
        {resources}
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      volumeMounts:
        - name: scratch
          mountPath: /tmp
  volumes:
    - name: scratch
      emptyDir: {{}}
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
  annotations:
    # Plain Deployments, without Knative: its queue proxy would have its own idea of draining and of probes.
    serving.kserve.io/deploymentMode: RawDeployment
    serving.kserve.io/autoscalerClass: hpa
spec:
  predictor:
    minReplicas: 1
    maxReplicas: {max_replicas}
    scaleMetric: cpu
    scaleTarget: 70
    terminationGracePeriodSeconds: {grace}
    model:
      modelFormat:
        name: {format}
        version: "1"
      runtime: {name}
      protocolVersion: v2
      storageUri: {storage}
"""
