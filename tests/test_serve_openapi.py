"""What schemathesis makes of the OpenAPI document, against a service that listens."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from serving import serving

from mmdata.serve.app import create_app
from mmdata.storage.dataset import Dataset


@pytest.fixture(scope="module")
def api_schema(built: Dataset):
    with serving(create_app(built)) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_request_finds_an_answer_that_the_document_does_not_know(case: schemathesis.Case) -> None:
    case.call_and_validate()
