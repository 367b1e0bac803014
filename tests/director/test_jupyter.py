"""`%%measure` in a real kernel: the cell's own outputs and errors as they are without it, then the figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip(
    "nbformat", reason="the notebook tests need ipykernel and nbclient: pip install '.[test]'"
)
pytest.importorskip("nbclient", reason="the notebook tests need ipykernel and nbclient: pip install '.[test]'")
pytest.importorskip("ipykernel", reason="the notebook tests need ipykernel and nbclient: pip install '.[test]'")

from nbclient import NotebookClient  # noqa: E402
from nbclient.exceptions import CellExecutionError  # noqa: E402

from director.jupyter import as_line_magic  # noqa: E402
from director.session.files import load_manifest  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples/measure_cell.ipynb"
# A model of constant power: 50 W whatever the machine does, so that energy is 50 W times the time.
MODEL = "--drivers estimate --set estimate.idle_watts=50 --set estimate.peak_watts=50"
CELLS = [
    "%load_ext director.jupyter",
    f"""%%measure {MODEL} --label "a <cell>" --into m --output s
import time
from power_agent import phase
with phase("sleep & rest", index=1):
    time.sleep(0.4)
print("the cell's own output")
6 * 7""",
    "print(m.joules / m.duration_s, m.session.name, __import__('os').environ.get('POWER_AGENT_MARKS'))",
    f"""%%measure {MODEL} --no-plot
import asyncio
await asyncio.sleep(0)
get_ipython().run_cell('1')
raise KeyError('mine')""",
    "Out[2]",
    "%%measure --drivers nvlm\nprint('never run')",
    "%%measure --drivers\nprint('never run')",
    "%unload_ext director.jupyter",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[list[Any]]]:
    """What each cell gave, all in one kernel."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for number, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, number)
            except CellExecutionError:
                assert number in (3, 5, 6)
        yield [cell.outputs for cell in notebook.cells]
    assert load_manifest(folder / "s").state == "complete"


def text(output: Any) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", str(output.get("text") or "\n".join(output.get("traceback", []))))


def test_a_cell_gives_its_own_output_then_a_line_then_a_plot(outputs: list[list[Any]]) -> None:
    assert outputs[0] == []
    own, value, line, plot = outputs[1]
    assert own.text == "the cell's own output\n"
    assert (value.output_type, value.data["text/plain"]) == ("execute_result", "42")
    assert re.fullmatch(r"a <cell>: \d+ ± \d+ J ESTIMATE, 50\.0 W for \d+ ms\n", line.text)
    assert plot.output_type == "display_data"
    assert re.fullmatch("█+ 0 to 50.0 W ESTIMATE", plot.data["text/plain"])
    root = ElementTree.fromstring(plot.data["image/svg+xml"])
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "a <cell>"
    assert re.fullmatch(r"sleep & rest 1: 4\d\d ms", titles[1] or "")


def test_figures_are_there_in_the_next_cell(outputs: list[list[Any]]) -> None:
    (printed,) = outputs[2]
    watts, session, marks = printed.text.split()
    assert float(watts) == pytest.approx(50.0, rel=0.02)
    assert (session, marks) == ("s", "None")


def test_an_error_is_shown_as_the_cells_own_and_the_cell_is_measured(outputs: list[list[Any]]) -> None:
    error = next(output for output in outputs[3] if output.output_type == "error")
    assert (error.ename, error.evalue) == ("KeyError", "'mine'")
    assert "----> 5 raise KeyError('mine')" in text(error)
    assert "measured_block" not in text(error) and "jupyter.py" not in text(error)
    assert len([output for output in outputs[3] if output.output_type == "error"]) == 1
    last = outputs[3][-1]
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ m?J ESTIMATE, 50.0 W for \d+ ms\n", last.text)
    assert outputs[4][0].data["text/plain"] == "42"


def test_a_mistake_in_the_options_is_told_and_the_cell_is_not_run(outputs: list[list[Any]]) -> None:
    assert "there is no driver 'nvlm'. did you mean 'nvml'?" in text(outputs[5][0])
    assert "expected one argument" in text(outputs[6][0])
    for cell in (outputs[5], outputs[6]):
        assert "never run" not in "".join(map(text, cell))
        assert "The cell was not run" in text(cell[0])


@pytest.mark.long
def test_the_example_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLE, 4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    line, plot = notebook.cells[2].outputs
    assert line.text.startswith("three epochs: ")
    root = ElementTree.fromstring(plot.data["image/svg+xml"])
    titles = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [title.partition(":")[0] for title in titles] == ["three epochs", "epoch 0", "epoch 1", "epoch 2"]


@pytest.mark.parametrize(
    ("cell", "becomes"),
    [
        (["%%measure\n", "1\n"], ["%measure\n", "1\n"]),
        (["%%measure --label x\n"], ["%measure --label x\n"]),
        (["%%measure"], ["%measure\n"]),
        (["%%measured\n"], ["%%measured\n"]),
        (["%%measure?\n"], ["%%measure?\n"]),
        (["1\n", "%%measure\n"], ["1\n", "%%measure\n"]),
        ([], []),
    ],
)
def test_only_the_first_line_counts(cell: list[str], becomes: list[str]) -> None:
    assert as_line_magic(cell) == becomes
