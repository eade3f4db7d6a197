"""The README's commands and Python run as they stand, in one folder, one after the other."""

import re
import shlex
from pathlib import Path

import pytest

from mmdata.cli import KEEPING, LEARNING, LOOKING, STAGES, invoke
from mmdata.demo import write_corpus

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "decisions.md"})]
README = "\n".join(page.read_text() for page in PAGES)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_commands_and_the_python_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMDATA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "configs").symlink_to(Path(__file__).parent.parent / "configs")
    write_corpus(tmp_path / "demo" / "corpus", 150)
    named = r"^```(?:python|yaml)\n(# (\w+\.(?:py|yaml))\n.*?)^```"
    for code, name in re.findall(named, README, re.DOTALL | re.MULTILINE):
        (tmp_path / name).write_text(code)
    commands = [line for block in _blocks("sh") for line in block.splitlines() if line.strip()]
    assert len(commands) >= 12
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "mmdata"
        key = next(iter(sorted((tmp_path / "demo" / "corpus" / "star").glob("*.png")))).stem
        invoke([argument.replace("star/00001", f"star/{key}") for argument in arguments])
    assert (tmp_path / "hits.png").stat().st_size > 10_000
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("verb", [verb.__name__ for verb in [*STAGES, *LEARNING, *LOOKING, *KEEPING]])
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert re.search(rf"(mmdata|make) {verb}\b", README)


def test_what_the_pages_link_to_is_there() -> None:
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())]
    assert len(links) > 20
    assert [link for page, link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("target", ["demo", "test", "test-all", "check", "stamps", "bench"])
def test_every_make_target_of_the_readme_is_in_the_makefile(target: str) -> None:
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert re.search(rf"make\s+{target}\b", README)
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
