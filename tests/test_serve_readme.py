"""The curl lines of docs/service.md, as a shell runs them."""

import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest
from PIL import Image
from serving import serving

from mmdata.serve.app import create_app
from mmdata.storage.dataset import Dataset

PAGE = (Path(__file__).parent.parent / "docs" / "service.md").read_text()
LINES = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if "curl" in line
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_lines_of_the_page_are_answered(built: Dataset, corpus: Path, tmp_path: Path) -> None:
    star = sorted(corpus.glob("star/*.png"))[0]
    shutil.copy(star, tmp_path / "star.png")
    assert len(LINES) >= 9
    with serving(create_app(built)) as client:
        for line in LINES:
            here = line.replace("localhost:8000", f"localhost:{client.base_url.port}")
            command = here.replace("star/00001", f"star/{star.stem}").replace("curl -s", "curl -s -4 --fail-with-body")
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True)
            assert done.returncode == 0, (command, done.stdout)
            if "-o " not in line:
                answer = orjson.loads(done.stdout)
                assert answer
                assert "answers" not in answer or answer["answers"][0]["hits"]
    assert (tmp_path / "start.wav").stat().st_size == 1000
    assert Image.open(tmp_path / "small.webp").format == "WEBP"
