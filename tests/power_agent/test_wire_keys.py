from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from director.cli import main as director
from power_agent.wire.keys import KeyProblem, Keyring, load_pin, load_secret, make_secret, parse_key, write_pin
from power_agent.wire.sockets import Address, AddressProblem, connect

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")


def test_a_secret_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "agent.secret"
    made = make_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_secret(path) == made
    assert made.secret.hex() not in repr(made)
    with pytest.raises(KeyProblem, match="already"):
        make_secret(path)
    path.chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        load_secret(path)


def test_a_damaged_secret_is_told(tmp_path: Path) -> None:
    path = tmp_path / "agent.secret"
    with pytest.raises(KeyProblem, match="cannot be read"):
        load_secret(path)
    path.write_text("xyz")
    path.chmod(0o600)
    with pytest.raises(KeyProblem, match="damaged"):
        load_secret(path)


@pytest.mark.parametrize("text", ["", "ab", "g" * 64, "a" * 63, "a" * 65])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(KeyProblem, match="64 hex"):
        parse_key(text)


def test_a_keyring_sees_what_others_change(tmp_path: Path) -> None:
    mine, others = Keyring(tmp_path / "agents"), Keyring(tmp_path / "agents")
    assert mine.names() == {}
    others.add("node1", bytes(32))
    assert mine.names() == {bytes(32): "node1"}
    with pytest.raises(KeyProblem, match="belongs to node1"):
        mine.add("node2", bytes(32))
    with pytest.raises(KeyProblem, match="another key"):
        mine.add("node1", bytes([1]) * 32)
    for bad in ("../x", ".x", "a/b", ""):
        with pytest.raises(KeyProblem, match="no name"):
            mine.add(bad, bytes([2]) * 32)
    assert others.remove("node1") and not others.remove("node1")
    assert mine.names() == {}


def test_keys_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--keys", str(tmp_path)]
    assert director(["keys", "init", *folder]) == 0
    assert director(["keys", "show", *folder]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(f"power-agent enroll --director HOST:PORT --key {printed[1]}")
    assert director(["keys", "init", *folder]) == 1
    assert director(["keys", "add", "node1", "ab" * 32, *folder]) == 0
    assert director(["keys", "add", "node1", "zz", *folder]) == 1
    assert director(["keys", "add", "node1", *folder]) == 2
    capsys.readouterr()
    assert director(["keys", "list", *folder]) == 0
    assert capsys.readouterr().out == f"node1  {'ab' * 32}\n"
    assert director(["keys", "remove", "node1", *folder]) == 0
    assert director(["keys", "remove", "node1", *folder]) == 1


def test_enrolling_pins_the_director_and_prints_the_next_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from power_agent.cli import main as agent

    words = ["enroll", "--director", "10.0.0.5", "--key", "cd" * 32, "--host", "node7", "--keys", str(tmp_path)]
    assert agent(words) == 0
    own = load_secret(tmp_path / "agent.secret").public.hex()
    assert capsys.readouterr().out.rstrip().endswith(f"power-director keys add node7 {own}")
    assert load_pin(tmp_path).address == "tcp://10.0.0.5:5570"
    assert agent(words) == 0, "again, with the same key"
    assert own in capsys.readouterr().out
    assert agent(["enroll", "--director", "a b", "--key", "cd" * 32, "--keys", str(tmp_path)]) == 1
    assert agent(["enroll", "--director", "a", "--key", "cd", "--keys", str(tmp_path)]) == 1


def test_a_pin_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(KeyProblem, match="power-agent enroll"):
        load_pin(tmp_path)
    write_pin(tmp_path, "tcp://a:1", bytes(32))
    assert load_pin(tmp_path).key == "00" * 32
    (tmp_path / "director.json").write_text('{"address": "a", "key": "zz"}')
    with pytest.raises(KeyProblem, match="enrol this agent again"):
        load_pin(tmp_path)


def test_addresses() -> None:
    assert str(Address.parse("tcp://10.0.0.5:7000")) == "tcp://10.0.0.5:7000"
    assert Address.parse("[fe80::1]:5").endpoint(2) == "tcp://[fe80::1]:7"
    assert Address.parse("director").port == 5570
    for text in ("", "a b", "http://a", "a:0", "a:70000", "a:65534", "tcp://*:5"):
        with pytest.raises(AddressProblem, match="no address"):
            Address.parse(text)
    assert [Address.parse(text).is_loopback for text in ("127.9.9.9", "localhost", "[::1]", "10.0.0.5", "0.0.0.0")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_an_agent_goes_to_another_machine_with_keys_alone() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with pytest.raises(AddressProblem, match="power-agent enroll"):
        connect(context, Address.parse("10.0.0.5"), None, None)
    context.term()


HALF_A_KEY = """
import resource, signal, sys
from pathlib import Path
from power_agent.wire.keys import KeyProblem, make_secret
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
try:
    make_secret(Path(sys.argv[1]))
except KeyProblem as problem:
    print(problem)
"""


def test_a_full_disk_leaves_no_half_key_in_the_way(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HALF_A_KEY, str(tmp_path / "agent.secret")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert not (tmp_path / "agent.secret").exists()
    make_secret(tmp_path / "agent.secret")
