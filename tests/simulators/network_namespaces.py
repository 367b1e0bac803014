"""Two network namespaces with a bad network between them, made by the kernel's netem."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

DIRECTOR_IP = "10.99.0.1"


def why_no_namespaces() -> str:
    """Why there can be none here; empty: there can."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "needs ip and tc: apt-get install iproute2"
    name = f"pa-probe-{os.getpid()}"
    commands = [["ip", "netns", "add", name], ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo"]]
    commands[1] += ["root", "netem", "delay", "1ms"]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                why = f"network namespaces with netem are not permitted here: {done.stderr.strip()}"
                return f"{why}; make test-machine has them"
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return ""


@contextmanager
def namespaces(director_netem: str, agent_netem: str) -> Iterator[tuple[list[str], list[str]]]:
    """The words before a command that run it on the director's side, 10.99.0.1, and on the agent's, 10.99.0.2.

    What each side sends goes through its netem, such as "delay 10ms loss 5%".
    """
    names = [f"pa{role}{os.getpid()}" for role in ("d", "a")]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    with ExitStack() as stack:
        for name in names:
            run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        run("ip", "link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "veth0", "netns", names[1])
        for number, (name, netem) in enumerate(zip(names, (director_netem, agent_netem), strict=True), start=1):
            run("ip", "-n", name, "address", "add", f"10.99.0.{number}/24", "dev", "veth0")
            run("ip", "-n", name, "link", "set", "veth0", "up")
            run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "veth0", "root", "netem", *netem.split())
        one, two = (["ip", "netns", "exec", name] for name in names)
        yield one, two
