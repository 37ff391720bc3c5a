"""The OpenAPI document is true: whatever it allows, and much that it forbids, gets an answer that it describes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)  # fmt: skip

from live_server import Live, live, tiny_engine

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
EXAMPLES = {GenerationMode.POSITIVE: 25, GenerationMode.NEGATIVE: 25}
"""For each operation."""


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Its context is short, so that an answer without a limit ends soon."""
    data = str(tmp_path_factory.mktemp("data"))
    engine = tiny_engine(tiny_folder, max_model_len=64)
    with live(engine, max_model_len=64, data_dir=data, request_seconds=20.0) as server:
        yield server


@pytest.mark.parametrize("mode", EXAMPLES)
def test_every_route(server: Live, mode: GenerationMode) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    failed = []
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES[mode], deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        try:
            check()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # nothing is wrong to send where nothing is to be sent
        except (FailureGroup, Failure) as error:  # all routes are tried
            failed.append(f"{operation.label}: {error}")
    assert not failed, "\n".join(failed)


def test_the_server_is_well_afterwards(server: Live) -> None:
    assert server.chat("hi", max_tokens=2).status_code == 200
    load = server.engine.load()
    assert (load.running, load.waiting) == (0, 0)
