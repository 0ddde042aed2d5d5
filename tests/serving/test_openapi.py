"""The description is valid, and the server does what it says whatever it is sent.

``REDLINE_FUZZ_EXAMPLES`` says how many requests each route gets.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import InvalidArgument, Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from tests.serving.fakes import picture

from redline.serving.app import create_app
from redline.serving.core import Call, Server
from redline.serving.models import Models
from redline.serving.routes import ROUTES, Route
from redline.serving.tokens import Tokens

EXAMPLES = int(os.environ.get("REDLINE_FUZZ_EXAMPLES", "15"))
ADMIN = "an-admin-token-of-some-length"
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.template)
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_every_answer_is_one_that_is_described(models: Models, route: Route, mode: GenerationMode) -> None:
    app = create_app(Server(models, tokens=Tokens(admin=ADMIN)))
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    headers = {"Authorization": f"Bearer {ADMIN}"} if "/repository/" in route.template else None

    @given(case=schema[route.template][route.method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="REDLINE_FUZZ_EXAMPLES" not in os.environ,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def send(case: Any) -> None:
        case.call_and_validate(checks=CHECKS, headers=headers)

    try:
        send()
    except (Unsatisfiable, InvalidArgument):
        # A route without parameters has nothing that could be wrong.
        assert mode is GenerationMode.NEGATIVE


def describe(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.answer(Call(method="GET", path="/openapi.json")).body)
    return found


def test_every_route_is_described(server: Server) -> None:
    found = describe(server)
    assert found["openapi"].startswith("3.1")
    told = {(path, method.upper()) for path, item in found["paths"].items() for method in item}
    assert told == {(route.template, route.method) for route in ROUTES}
    ids = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_schemas_are_those_of_the_served_models(server: Server) -> None:
    schemas = describe(server)["components"]["schemas"]

    def accepts(name: str, body: Any) -> bool:
        validator = jsonschema.Draft202012Validator({**schemas[name], "components": {"schemas": schemas}})
        return bool(validator.is_valid(body))

    one = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    assert accepts("Infer_affine", {"inputs": [one]})
    for wrong in ({"name": "y"}, {"datatype": "FP64"}, {"shape": [1, 5]}, {"shape": [0, 4]}, {"data": ["1"]}):
        assert not accepts("Infer_affine", {"inputs": [{**one, **wrong}]})
    assert accepts("Predict_affine", {"inputs": {"x": [[1, 2, 3, 4]]}})
    assert accepts("Predict_affine", {"instances": [[1, 2, 3, 4]]})
    assert not accepts("Predict_affine", {"inputs": [[1, 2, 3]]})
    assert accepts("Predict_mixed", {"inputs": {"a": [[1, 2]], "b": [[1, 2]], "on": [True]}})
    reply = server.answer(
        Call(method="POST", path="/predict/colours", headers={"content-type": "image/png"}, body=picture())
    )
    assert accepts("Prediction", json.loads(reply.body))
    assert accepts("Error", json.loads(server.answer(Call(method="GET", path="/x")).body))


def test_the_examples_are_answered(server: Server) -> None:
    schemas = describe(server)["components"]["schemas"]
    for name in ("affine", "mixed", "colours"):
        for kind, path in (("Infer", f"/v2/models/{name}/infer"), ("Predict", f"/predict/{name}")):
            (example,) = schemas[f"{kind}_{name}"]["examples"]
            headers = {"content-type": "application/json"}
            reply = server.answer(Call(method="POST", path=path, headers=headers, body=json.dumps(example).encode()))
            assert reply.status == 200, reply.body


def test_a_token_is_described_where_one_is_needed(server_with: Callable[..., Server]) -> None:
    paths = describe(server_with())["paths"]
    assert "security" not in paths["/v2"]["get"]
    server = server_with(tokens=Tokens(token="a-token-of-some-length"))
    call = Call(method="GET", path="/openapi.json", headers={"authorization": "Bearer a-token-of-some-length"})
    found = json.loads(server.answer(call).body)
    assert found["paths"]["/v2"]["get"]["security"] == [{"token": []}]
    assert "401" in found["paths"]["/predict"]["post"]["responses"]
    assert "security" not in found["paths"]["/v2/health/live"]["get"]
