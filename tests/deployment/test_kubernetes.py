"""The manifests as a YAML parser reads them, held to each other and to the command line."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import typer.main

from redline.core.errors import InputError
from redline.deployment.kubernetes import (
    DOCKERIGNORE,
    Workload,
    dockerfile,
    kserve,
    kubernetes_name,
    manifests,
    memory_for,
)

yaml = pytest.importorskip("yaml")
READY, LIVE = "/v2/health/ready", "/v2/health/live"


def documents(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def workload(server: str = "redline", **changes: Any) -> Workload:
    return Workload(**{"name": "models", "server": server, "gpus": 0 if server == "redline" else 1, **changes})


@pytest.mark.parametrize("server", ["redline", "triton"])
def test_the_objects_belong_together(server: str) -> None:
    found = documents(manifests(workload(server)))
    assert sorted(found) == ["Deployment", "HorizontalPodAutoscaler", "Service"]
    deployment = found["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    container = deployment["template"]["spec"]["containers"][0]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert "replicas" not in deployment, "it would undo the autoscaler's number at each apply"
    annotations = deployment["template"]["metadata"]["annotations"]
    assert all(isinstance(value, str) for value in annotations.values())


@pytest.mark.parametrize("server", ["redline", "triton"])
def test_probes_and_their_patience(server: str) -> None:
    pod = documents(manifests(workload(server, start_s=120)))["Deployment"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    start, ready, live = (container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness"))
    assert [probe["httpGet"]["path"] for probe in (start, ready, live)] == [READY, READY, LIVE]
    assert start["periodSeconds"] * start["failureThreshold"] >= 120
    # A busy server must not be killed: what is alive may be slow for longer than what is ready.
    assert live["timeoutSeconds"] * live["failureThreshold"] > ready["timeoutSeconds"] * ready["failureThreshold"]


def test_the_grace_period_holds_the_drain() -> None:
    one = workload(drain_delay_s=20, drain_timeout_s=30)
    pod = documents(manifests(one))["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 20 + 30
    assert "lifecycle" not in pod["containers"][0]
    command = json.loads(dockerfile(one).split("CMD ")[1])
    assert command[command.index("--drain-delay") + 1] == "20"


def test_the_server_is_given_the_time_that_the_manifest_counts_on() -> None:
    from redline.commands.serve import ServeOptions

    assert ServeOptions().drain_timeout_s == workload().drain_timeout_s


def test_triton_is_kept_answering_by_a_hook() -> None:
    one = workload("triton", drain_delay_s=20)
    pod = documents(manifests(one))["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "20"]
    assert "--exit-timeout-secs=30" in one.command("/models", 8000)


@pytest.mark.parametrize("text", [manifests(workload()), kserve(workload(), "pvc://models/x")])
def test_a_container_may_do_little(text: str) -> None:
    for document in yaml.safe_load_all(text):
        spec = document["spec"]
        pod = spec.get("template", {}).get("spec") or spec
        for container in pod.get("containers", ()):
            context = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"] is True
            assert context["runAsUser"] >= 10000
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["volumeMounts"][0]["mountPath"] == "/tmp"
            assert pod["volumes"][0] == {"name": container["volumeMounts"][0]["name"], "emptyDir": {}}


def test_resources() -> None:
    pod = documents(manifests(workload("triton", cores=3, memory_bytes=1 << 31, gpus=1)))["Deployment"]["spec"]
    resources = pod["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "3", "memory": "2048Mi", "nvidia.com/gpu": "1"}
    assert resources["limits"] == resources["requests"]
    assert memory_for([100 << 20], instances=1) > 300 << 20


def test_a_replica_runs_as_much_at_once_as_it_has_cores() -> None:
    command = workload(cores=3).command("/models", 8000)
    assert command[command.index("--instances") + 1] == "3"


@pytest.mark.parametrize("server", ["redline", "triton"])
def test_kserve(server: str) -> None:
    found = documents(kserve(workload(server), "s3://bucket/models: all"))
    runtime, service = found["ServingRuntime"]["spec"], found["InferenceService"]["spec"]["predictor"]
    assert runtime["protocolVersions"] == [service["model"]["protocolVersion"]] == ["v2"]
    assert service["model"]["runtime"] == found["ServingRuntime"]["metadata"]["name"]
    assert service["model"]["modelFormat"]["name"] == runtime["supportedModelFormats"][0]["name"]
    assert service["model"]["storageUri"] == "s3://bucket/models: all"
    container = runtime["containers"][0]
    assert container["name"] == "kserve-container"
    port = container["ports"][0]["containerPort"]
    assert str(port) in " ".join(container["command"])
    assert "/mnt/models" in " ".join(container["command"])
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")} == {port}
    assert service["terminationGracePeriodSeconds"] > 40
    assert all(isinstance(value, str) for value in found["InferenceService"]["metadata"]["annotations"].values())


def test_the_command_is_one_that_the_command_line_takes() -> None:
    from redline.cli import build_app

    app: Any = typer.main.get_command(build_app())
    program, verb, *words = workload().command("/models", 8000)
    assert program == "redline"
    known = {option for parameter in app.commands[verb].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_dockerfile() -> None:
    text = dockerfile(workload())
    assert re.search(r"^FROM python:3\.11-slim$", text, flags=re.M)
    user = re.search(r"^USER (\d+)$", text, flags=re.M)
    pod = documents(manifests(workload()))["Deployment"]["spec"]["template"]["spec"]
    assert user is not None
    assert int(user[1]) == pod["securityContext"]["runAsUser"]
    command = json.loads(text.split("CMD ")[1])
    assert f"COPY . {command[2]}\n" in text
    assert json.loads(dockerfile(workload("triton")).split("CMD ")[1])[0] == "tritonserver"
    assert "*.yaml" in DOCKERIGNORE


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Models", "models"),
        ("my_models.v2", "my-models-v2"),
        ("9lives", "redline-9lives"),
        ("", "redline"),
        ("ü", "redline"),
    ],
)
def test_kubernetes_names(text: str, name: str) -> None:
    assert kubernetes_name(text) == name
    Workload(name=kubernetes_name(text * 30))


@pytest.mark.parametrize(
    "wrong", [{"name": "Models"}, {"name": "x" * 60}, {"name": "a-"}, {"cores": 0}, {"start_s": 0}]
)
def test_what_kubernetes_would_refuse_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        workload(**wrong)
