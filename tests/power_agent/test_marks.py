"""Marks as a workload makes them, in real processes: what comes to the files, and that the workload never notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_agent.mark_file import MarkFile
from power_agent.mark_lines import encode_details, encode_name


def run(
    code: str, directory: Path | None, *, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    environment.pop("POWER_AGENT_MARKS", None)
    if directory is not None:
        environment["POWER_AGENT_MARKS"] = str(directory)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def only_file(directory: Path) -> list[dict[str, Any]]:
    (path,) = directory.glob("*.marks")
    return records(path)


def test_a_phase_begins_and_ends_with_what_it_did(tmp_path: Path) -> None:
    done = run(
        """
        from power_agent import mark, phase
        with phase("epoch", index=3, samples=60_000, lr=0.5) as p:
            mark("lr_drop", lr=0.05)
            p.add(samples=40, tokens=7, loss=1.5)
            p.add(tokens=3)
        """,
        tmp_path,
        RANK="5",
    )
    assert (done.returncode, done.stderr) == (0, "")
    header, begin, point, end = only_file(tmp_path)
    assert header["op"] == "header" and header["version"] == 1 and header["rank"] == 5
    assert header["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert (begin["op"], begin["name"], begin["index"]) == ("begin", "epoch", 3)
    assert begin["work"] == {"samples": 60_000} and begin["attributes"] == {"lr": 0.5}
    assert (point["op"], point["name"], point["attributes"]) == ("point", "lr_drop", {"lr": 0.05})
    assert (end["op"], end["name"], end["begin_ns"]) == ("end", "epoch", begin["t_ns"])
    assert end["work"] == {"samples": 60_040, "tokens": 10} and end["attributes"] == {"loss": 1.5}
    assert begin["t_ns"] <= point["t_ns"] <= end["t_ns"]


def test_without_the_variable_nothing_happens(tmp_path: Path) -> None:
    code = """
        from power_agent import mark, phase
        from power_agent.marks import begin, end, is_measured
        assert not is_measured()
        with phase("a", samples=1) as p:
            p.add(samples=1)
        begin("b"); end("b"); mark("c")
        @phase("d")
        def d(): return 4
        assert d() == 4
    """
    done = run(code, None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_an_exception_passes_and_is_named(tmp_path: Path) -> None:
    done = run(
        """
        from power_agent import phase
        try:
            with phase("a"):
                raise KeyError("mine")
        except KeyError as error:
            assert error.args == ("mine",)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert only_file(tmp_path)[-1]["error"] == "KeyError"


def test_what_was_marked_before_a_kill_remains(tmp_path: Path) -> None:
    code = """
        import os, signal
        from power_agent import phase
        with phase("run"):
            with phase("step"):
                pass
            with phase("step"):
                os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(code, tmp_path).returncode == -signal.SIGKILL
    assert [record["op"] for record in only_file(tmp_path)] == ["header", "begin", "begin", "end", "begin"]


def test_every_process_and_thread_is_told_apart(tmp_path: Path) -> None:
    code = """
        import multiprocessing, os, subprocess, sys, threading
        from power_agent import phase

        def work():
            for index in range(200):
                with phase("step", index=index):
                    pass

        if __name__ == "__main__":
            with phase("parent"):
                if os.fork() == 0:
                    work()
                    sys.exit()  # leaves the parent's phase: that is for the parent to close
                os.wait()
                threads = [threading.Thread(target=work) for _ in range(4)]
                for thread in threads: thread.start()
                for thread in threads: thread.join()
                subprocess.run([sys.executable, "-c", "from power_agent import mark; mark('grandchild')"], check=True)
    """
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    files = {found[0]["pid"]: found for found in map(records, tmp_path.glob("*.marks"))}
    assert len(files) == 3
    (parent,) = (found for found in files.values() if found[1]["name"] == "parent")
    steps = [record for record in parent if record.get("name") == "step"]
    assert len(steps) == 4 * 200 * 2
    children = {pid: found for pid, found in files.items() if found is not parent}
    assert all(found[0]["ppid"] == parent[0]["pid"] for found in children.values())
    assert sorted(len(found) for found in children.values()) == [2, 1 + 200 * 2]
    assert not any(record.get("name") == "parent" for found in children.values() for record in found)


def test_marks_can_be_directed_to_another_session_and_back(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    done = run(
        """
        import os, subprocess, sys
        from power_agent import mark, phase
        from power_agent.marks import direct_to, leave
        mark("nobody listens")
        first, second = "first", "second"
        direct_to(first)
        outer = phase("outer")
        with outer:
            direct_to(second)
            with phase("inner"):
                if (child := os.fork()) == 0:
                    mark("forked")
                    os._exit(0)
                os.waitpid(child, 0)
                subprocess.run([sys.executable, "-c", "from power_agent import mark; mark('spawned')"], check=True)
            late = phase("late").__enter__()
            direct_to(first)
            leave(second)
            mark("again")
            late.__exit__(None, None, None)
        direct_to(None)
        leave(first)
        assert "POWER_AGENT_MARKS" not in os.environ
        mark("nobody listens any more")
        open_files = set(os.listdir("/proc/self/fd"))
        for _ in range(50):
            direct_to(first)
            mark("again")
            direct_to(None)
            leave(first)
        del outer, late
        assert len(os.listdir("/proc/self/fd")) <= len(open_files)
        """,
        None,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")

    def marks(name: str) -> list[list[tuple[str, str]]]:
        files = sorted((tmp_path / name).glob("*.marks"), key=lambda path: records(path)[1]["t_ns"])
        return [[(mark["op"], mark["name"]) for mark in records(path)[1:]] for path in files]

    once = [("point", "again")]
    assert marks("first") == [[("begin", "outer"), ("point", "again"), ("end", "outer")], *[once] * 50]
    assert marks("second") == [
        [("begin", "inner"), ("end", "inner"), ("begin", "late")],
        [("point", "forked")],
        [("point", "spawned")],
    ]


def test_begin_and_end_may_say_another_instant_and_wait_for_the_gpu(tmp_path: Path) -> None:
    code = """
        import sys, time, types
        from power_agent.marks import begin, end

        waits = []
        cuda = types.SimpleNamespace(is_initialized=lambda: True, synchronize=lambda: waits.append(time.monotonic_ns()))
        sys.modules["torch"] = types.SimpleNamespace(cuda=cuda)
        begin("a", t_ns=1000, samples=1)
        end("a", t_ns=2000, sync="gpu")
        begin("b", sync="cuda", t_ns="soon")
        end("b", sync="cuda")
        print(*waits)
    """
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    _, begin_a, end_a, begin_b, end_b = only_file(tmp_path)
    assert (begin_a["t_ns"], end_a["t_ns"]) == (1000, 2000)
    assert end_a["attributes"] == {"sync": "gpu"} and begin_b["attributes"] == {"unusable_t_ns": "soon"}
    first, second = map(int, done.stdout.split())
    assert first <= begin_b["t_ns"] <= second <= end_b["t_ns"]
    assert run(code, None).stdout == "\n"  # nobody measures: nothing to wait for


def test_functions_and_coroutines_can_be_decorated(tmp_path: Path) -> None:
    code = """
        import asyncio
        from power_agent import phase

        @phase("outer", index=1)
        async def outer():
            "documented"
            await asyncio.sleep(0)
            return inner(2)

        @phase("inner", samples=8)
        def inner(depth):
            return inner(depth - 1) if depth else "done"

        assert asyncio.run(outer()) == "done" and outer.__doc__ == "documented"
    """
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    marks = [(record["op"], record["name"]) for record in only_file(tmp_path)[1:]]
    inner = [("begin", "inner")] * 3 + [("end", "inner")] * 3
    assert marks == [("begin", "outer"), *inner, ("end", "outer")]


def test_whatever_is_passed_the_workload_goes_on(tmp_path: Path) -> None:
    code = r"""
        import math
        from power_agent import mark, phase
        from power_agent.marks import begin, end

        class Spiteful:
            __hash__ = None
            def __str__(self): raise OSError("no")
            __repr__ = __index__ = __float__ = __str__

        loop = []
        loop.append(loop)
        odds = ["a\nb", '"%d\\', "😀", "x" * 2000, "", None, 3, [1], Spiteful(), "\udc80", b"x", 10**5000, math.nan]
        for odd in odds:
            with phase(odd, index=odd, samples=odd, rank=odd, sync=odd, odd=odd) as p:
                p.add(samples=odd, tokens=odd, odd=odd)
            mark(odd, index=odd, rank=odd, odd=odd)
            begin(odd, streams=odd, sync=odd, t_ns=odd)
            end(odd, queries=odd)
        with phase("x", loop=loop, big="y" * 100_000, **{"keys": {1: 2, (3,): 4}}):
            pass
        p = phase("never entered")
        p.add(samples=1)
        p.__exit__(None, None, None)
    """
    done = run(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = only_file(tmp_path)
    assert len(found) == 1 + 13 * 5 + 2
    assert [record["name"] for record in found[1:] if record["op"] == "point"][:3] == ["a\nb", '"%d\\', "😀"]
    assert max(len(json.dumps(record)) for record in found) < 20_000


def test_a_directory_that_is_not_there_costs_one_line(tmp_path: Path) -> None:
    code = "from power_agent import phase\nfor _ in range(3):\n    with phase('a'): pass\nprint('done')"
    done = run(code, tmp_path / "gone")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr.count("\n") == 1 and "marks are off" in done.stderr


def test_a_directory_deleted_during_the_run_is_survived(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    code = f"""
        import shutil
        from power_agent import phase
        with phase("a"):
            shutil.rmtree({str(marks)!r})
        with phase("b"): pass
    """
    done = run(code, marks)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_is_counted_and_told(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: writes come short, then fail, then work again."""
    code = """
        import resource, signal
        from power_agent import phase
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with phase("before"): pass
        limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        for _ in range(10):
            with phase("during"): pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with phase("after"): pass
    """
    done = run(code, tmp_path)
    assert done.returncode == 0 and "marks could not be written" in done.stderr
    (path,) = tmp_path.glob("*.marks")
    lines = path.read_bytes().splitlines()
    kept, notes, torn = [], [], 0
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            torn += 1
            continue
        (notes if record["op"] == "lost" else kept).append(record)
    assert torn == 1
    assert kept[-1]["name"] == "after" and kept[1]["name"] == "before"
    during = sum(record.get("name") == "during" for record in kept)
    assert notes[-1]["count"] == 20 - during
    assert f" {20 - during} marks" in done.stderr


def test_marks_never_land_in_a_file_of_the_workload(tmp_path: Path) -> None:
    """As a daemon does, the workload closes all low descriptors that it knows nothing of, and opens its own."""
    code = f"""
        import os
        from power_agent import phase
        with phase("a"):
            os.closerange(3, 256)
            mine = [os.open({str(tmp_path)!r} + "/mine%d" % n, os.O_CREAT | os.O_WRONLY) for n in range(20)]
        with phase("b"): pass
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    assert run(code, marks).returncode == 0
    assert [path.stat().st_size for path in tmp_path.glob("mine*")] == [0] * 20
    assert [record.get("name") for record in only_file(marks)] == [None, "a", "a", "b", "b"]


def test_cuda_is_waited_for_at_both_edges_if_the_workload_uses_it(tmp_path: Path) -> None:
    """A module named torch that the workload itself has loaded; nothing of ours is replaced."""
    (tmp_path / "torch.py").write_text(
        textwrap.dedent(
            """
            class cuda:
                calls = 0
                started = False
                def is_initialized(): return cuda.started
                def synchronize(): cuda.calls += 1
            """
        )
    )
    marks = tmp_path / "marks"
    marks.mkdir()
    code = """
        import sys
        from power_agent import phase
        with phase("a", sync="cuda"): pass
        assert "torch" not in sys.modules
        import torch
        with phase("b", sync="cuda"): pass
        assert torch.cuda.calls == 0
        torch.cuda.started = True
        with phase("c", sync="cuda"): assert torch.cuda.calls == 1
        assert torch.cuda.calls == 2
        with phase("d"): pass
        assert torch.cuda.calls == 2
    """
    done = run(code, marks, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_the_import_stays_light() -> None:
    code = """
        import sys
        import power_agent
        heavy = {"typing", "asyncio", "msgspec", "numpy", "inspect", "contextlib", "dataclasses", "pathlib", "logging"}
        print(sorted(heavy & set(sys.modules)))
    """
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n" + textwrap.dedent(code),
    ]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING, ANYTHING, ANYTHING, st.dictionaries(st.sampled_from(["samples", "tokens"]), ANYTHING), ANYTHING)
def test_every_line_is_json(name: Any, index: Any, rank: Any, work: dict[str, Any], value: Any) -> None:
    line = b'{"name":%b%b}' % (encode_name(name), encode_details(index, rank, work, {"value": value}, "Error"))
    assert b"\n" not in line
    record = json.loads(line)
    assert isinstance(record["name"], str) and record["error"] == "Error"
    assert type(record.get("index", 0)) is int


def test_a_file_that_cannot_be_created_is_an_error_here_only(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        MarkFile(str(tmp_path / "gone"))
