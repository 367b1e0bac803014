"""What the documentation says is there is there, and its blocks run.

A block ```console run, ```python run is run; ```python NAME.py is saved as that file first; ```console long needs
the demos' packages and some time. Blocks of a page share a folder and run in their order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(?P<language>\w+) (?P<what>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
ANY_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PATH_IN_CODE = re.compile(r"(?<![\w/-])(?:drivers|power_agent|director|tests|benchmarks|examples|docs)/[\w./-]*\w")
DEADLINE_S = 300
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return ANY_BLOCK.sub("", page.read_text())


def local_links(page: Path) -> Iterator[tuple[Path, str]]:
    """Targets and anchors of the links that do not lead away."""
    for match in LINK.finditer(prose(page)):
        target, _, anchor = match["target"].partition("#")
        if "://" not in target:
            yield (page.parent / target).resolve() if target else page, anchor


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in local_links(page):
        assert target.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(target), f"{name(page)} links to #{anchor} of {name(target)}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    for path in PATH_IN_CODE.findall(page.read_text()):
        assert (ROOT / path).exists(), f"{name(page)} names {path}"


def test_every_page_is_found_from_the_index() -> None:
    found, waiting = set(), [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop()
        if page not in found and page.suffix == ".md":
            found.add(page)
            waiting += [target for target, _ in local_links(page)]
    assert set(PAGES) - found <= {ROOT / "README.md"}
    assert ROOT / "docs/index.md" in {target for target, _ in local_links(ROOT / "README.md")}


@pytest.mark.parametrize(
    ("module", "command", "page"),
    [
        ("director.cli", "run", "docs/run.md"),
        ("power_agent.cli", "mark", "docs/marks.md"),
        ("power_agent.cli", "serve", "docs/agent.md"),
        ("power_agent.cli", "run", "docs/agent.md"),
    ],
)
def test_every_option_is_documented(module: str, command: str, page: str) -> None:
    told = subprocess.run([sys.executable, "-m", module, command, "--help"], capture_output=True, text=True, check=True)
    options = set(OPTION.findall(told.stdout)) - {"--help"}
    # What the examples pass to the commands that they measure.
    options -= {"--epochs", "--scenario"}
    assert options <= set(OPTION.findall((ROOT / page).read_text()))


def test_batch_scripts_are_those_of_the_examples() -> None:
    page = (ROOT / "docs/how-to/slurm.md").read_text()
    scripts = sorted((ROOT / "examples/slurm").glob("*.sbatch"))
    assert scripts
    for script in scripts:
        assert f"```bash\n{script.read_text()}```" in page, f"docs/how-to/slurm.md does not show {script.name} as it is"


def run_blocks(page: Path, folder: Path, kinds: set[str]) -> None:
    tools = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    for block in BLOCK.finditer(page.read_text()):
        language, what, text = block["language"], block["what"], block["text"]
        if what.endswith(".py"):
            (folder / what).write_text(text)
        elif what in kinds:
            if language == "console":
                text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
            command = {"console": ["bash", "-ec"], "python": [sys.executable, "-c"]}[language]
            done = subprocess.run(
                [*command, text], cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S
            )
            assert done.returncode == 0, f"{name(page)}: {text}\n{done.stdout}{done.stderr}"


RUNNABLE = [
    page for page in PAGES if any(block["what"] in ("run", "long") for block in BLOCK.finditer(page.read_text()))
]


@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_blocks_run(page: Path, tmp_path: Path) -> None:
    run_blocks(page, tmp_path, {"run"})


@pytest.mark.long
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_long_blocks_run(page: Path, tmp_path: Path) -> None:
    for module in ("torch", "sklearn", "mlperf_loadgen", "mlperf_logging"):
        pytest.importorskip(module)
    run_blocks(page, tmp_path, {"run", "long"})
