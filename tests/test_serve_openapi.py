"""What schemathesis makes of the OpenAPI document, against a service that listens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from conftest import HERE
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from made_features import clusters, make, write_features
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving import serving
from tiny_files import picture, sound

from mmdata.config import ShardConfig
from mmdata.serve.app import create_app
from mmdata.stages.shard import shard
from mmdata.storage.dataset import Dataset

BEYOND = [positive_data_acceptance]
"""No schema knows the dimensions and the fields of an index, or what decodes as a picture."""
OPERATIONS = [
    ("GET", "/indexes"),
    ("POST", "/search"),
    ("GET", "/samples/{sample}"),
    ("GET", "/samples/{sample}/{modality}"),
    ("GET", "/indexes/{name}/map"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    corpus: Path = tmp_path_factory.mktemp("openapi") / "corpus"
    corpus.mkdir()
    for number in range(3):
        (corpus / f"{number}.png").write_bytes(picture())
        (corpus / f"{number}.wav").write_bytes(sound())
    url = str(corpus.parent / "dataset")
    shard(ShardConfig(dataset=url, source=str(corpus)), HERE)
    write_features(Dataset.open(url), "f", [clusters(300, 4)])
    make(Dataset.open(url))
    with serving(create_app(Dataset.open(url))) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


def test_the_document_names_every_operation(document: schemathesis.BaseSchema) -> None:
    assert {(one.ok().method.upper(), one.ok().path) for one in document.get_all_operations()} == set(OPERATIONS)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_request_finds_an_answer_that_the_document_does_not_know(
    document: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    asked = []

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(case=document[path][method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        asked.append(case.call_and_validate(excluded_checks=BEYOND if path == "/search" else []).status_code)

    try:
        ask()
    except Unsatisfiable:  # there is nothing to get wrong in a request without parameters
        assert mode is GenerationMode.NEGATIVE
    else:
        assert asked
