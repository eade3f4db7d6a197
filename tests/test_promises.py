"""The documents that promise something name the tests that hold it."""

import re
from pathlib import Path

import pytest
from test_faults import known_tests

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["SECURITY.md", "GUARANTEES.md"])
def test_every_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_\w+::test_\w+)`", (ROOT / document).read_text()))
    assert len(named) > 10
    assert named - known_tests() == set()


def test_every_guarantee_names_a_test_or_a_document():
    promises = re.split(r"\n\d+\. ", (ROOT / "GUARANTEES.md").read_text().split("\nNot promised")[0])[1:]
    assert len(promises) == 21
    assert [promise for promise in promises if "::test_" not in promise and ".md)" not in promise] == []
