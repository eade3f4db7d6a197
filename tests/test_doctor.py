"""The doctor finds what is there, says what is wrong, and leaves nothing behind."""

from pathlib import Path

import torch

from mmdata.doctor import EXTRAS, LIBRARIES, examine
from mmdata.encoders.families import STARTERS

STATES = {"ok", "absent", "wrong"}


def test_a_machine_that_runs_the_tests_is_well():
    findings = {finding.what: finding for finding in examine()}
    assert set(findings) >= {*LIBRARIES, *(f"encoder {name}" for name in STARTERS), "ray", "device"}
    assert [what for what, finding in findings.items() if finding.state == "wrong"] == []
    assert findings["torch"].found == torch.__version__


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path):
    [*_, finding] = examine(dataset=str(tmp_path))
    assert (finding.what, finding.state) == ("dataset", "ok")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_wrong_with_a_remedy(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    [*_, finding] = examine(dataset=str(tmp_path / "file" / "data"))
    assert (finding.what, finding.state) == ("dataset", "wrong")
    assert finding.remedy == "choose another place, or mend its permissions"


def test_a_cluster_that_does_not_answer_is_wrong():
    [*_, finding] = examine(ray_address="127.0.0.1:1")
    assert (finding.what, finding.state) == ("cluster", "wrong")
    assert "127.0.0.1:1" in finding.found


def test_an_extra_that_is_not_installed_names_the_line_that_brings_it(monkeypatch):
    monkeypatch.setitem(EXTRAS, "no-such-package", ("svg", "nothing"))
    [finding] = [one for one in examine() if one.what == "nothing"]
    assert (finding.state, finding.remedy) == ("absent", "pip install 'mmdata[svg]'")
