"""Fuzz every target, coverage-guided: `python fuzz/run.py SECONDS [TARGET]`. SECONDS are those of all together.

A find is written to fuzz/finds/TARGET-..., and the exit code is 1. Needs Linux and `pip install 'mmdata[fuzz]'`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FINDS = HERE / "finds"
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]


def main() -> int:
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    from fuzz.seeds import SEEDS

    names = names or list(SEEDS)
    FINDS.mkdir(exist_ok=True)
    bad = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for number, seed in enumerate(SEEDS[name]()):
                (Path(folder) / f"{number:03d}").write_bytes(seed)
            limits = ["-timeout=20", "-rss_limit_mb=3000", f"-max_total_time={max(1, round(seconds / len(names)))}"]
            command = [sys.executable, __file__, "--one", name, folder, *limits, f"-artifact_prefix={FINDS}/{name}-"]
            ran = subprocess.run([*command, "-max_len=65536", "-print_final_stats=1"], capture_output=True, text=True)
        lines = [line for line in ran.stderr.splitlines() if "number_of_executed_units" in line or "cov:" in line]
        print(f"{name}: {'ok' if ran.returncode == 0 else 'FOUND'}; {' '.join(lines[-1:]).strip()}", flush=True)
        if ran.returncode:
            bad.append(name)
            print(ran.stdout[-2000:], ran.stderr[-1000:])
    return 1 if bad else 0


def one() -> None:
    import atheris

    with atheris.instrument_imports(include=["mmdata", "fuzz", "PIL", "tarfile"]):
        import tarfile  # noqa: F401

        import PIL.Image

        PIL.Image.init()
        from fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *sys.argv[3:]], TARGETS[sys.argv[2]])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one()
    else:
        sys.exit(main())
