"""Runs a command under a kernel of the distribution, in an emulated machine that sees this one's files.

    python tests/kernel_machine.py -- python -m pytest -m machine

The kernel that tests run on often lacks modules: netem, usbtmc, IPMI. The machine boots the newest kernel in /boot that
has its modules in /lib/modules. Its root is this machine's, read-only, below a file system in memory: what the command
writes is gone afterwards. It runs as root, in the same folder, with the same PATH and PYTHONPATH; what it prints is
streamed, and its exit code is this program's. There is no network but `lo`. Modules: the command calls `modprobe`. It
knows the machine by the variable KERNEL_MACHINE.
"""

from __future__ import annotations

import argparse
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

INSTALL = "apt-get install qemu-system-x86 linux-image-amd64 busybox-static kmod cpio iproute2"
PROGRAMS = ("qemu-system-x86_64", "busybox", "modprobe", "cpio")
NEEDED_TO_BOOT = ("virtio_pci", "9p", "9pnet_virtio", "overlay")
KEPT = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "LANG", "NO_COLOR")
NO_EXIT_CODE = 125  # the machine ended without one

# The command's output goes to ttyS1 and its exit code to ttyS2; ttyS0 is the kernel's.
INIT = """#!/busybox sh
b() { /busybox "$@"; }
die() { echo "machine: $1 failed"; b poweroff -f; }
b mkdir -p /proc /sys /dev /below /memory /new
b mount -t proc proc /proc && b mount -t sysfs sys /sys && b mount -t devtmpfs dev /dev || die mount
for module in /modules/*; do b insmod "$module" || die "insmod $module"; done
b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /below || die 9p
b mount -t tmpfs -o size=75% memory /memory && b mkdir /memory/upper /memory/work || die tmpfs
b mount -t overlay -o lowerdir=/below,upperdir=/memory/upper,workdir=/memory/work overlay /new || die overlay
for each in proc sys dev; do b mount --move /$each /new/$each; done
b mkdir -p /new/dev/pts /new/dev/shm
b mount -t devpts devpts /new/dev/pts && b mount -t tmpfs shm /new/dev/shm && b mount -t tmpfs run /new/run
b cp /command /after /busybox /new/run
exec /busybox switch_root /new /run/busybox sh /run/after
"""
# Under the new root, as process 1: then the kernel finds this root's modprobe, and loads modules by itself too.
AFTER = """
/run/busybox hostname machine
/run/busybox ip link set lo up
/run/busybox stty -F /dev/ttyS1 raw
/bin/sh /run/command </dev/null >/dev/ttyS1 2>&1
echo $? >/dev/ttyS2
/run/busybox poweroff -f
"""


class CannotStart(Exception):
    """The machine lacks a part; the text says which, and what to do."""


def newest_kernel() -> tuple[Path, str]:
    """Its image and release, of those in /boot that have their modules here."""
    images = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda image: image.stat().st_mtime, reverse=True)
    for image in images:
        release = image.name.partition("-")[2]
        if Path("/lib/modules", release, "modules.dep").exists():
            return image, release
    raise CannotStart(f"no kernel in /boot has its modules in /lib/modules: {INSTALL}")


def modules_in_order(release: str, names: Sequence[str]) -> list[Path]:
    """Files of the modules and of those that they need, in the order in which to load them."""
    found: dict[Path, None] = {}
    for name in names:
        command = ["modprobe", "-S", release, "--show-depends", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStart(f"kernel {release} has no module {name}: {INSTALL}")
        words = [line.split() for line in done.stdout.splitlines()]
        found.update({Path(word[1]): None for word in words if word[0] == "insmod"})  # else it is built in
    return list(found)


def write_initramfs(path: Path, folder: Path, release: str, command: str) -> None:
    """What the kernel unpacks and starts. `folder`: an empty one, for its content."""
    (folder / "modules").mkdir()
    shutil.copy(shutil.which("busybox") or "", folder / "busybox")
    for number, module in enumerate(modules_in_order(release, NEEDED_TO_BOOT)):
        content = module.read_bytes()
        if module.suffix == ".xz":
            content = lzma.decompress(content)
        (folder / "modules" / f"{number:02}").write_bytes(content)
    (folder / "command").write_text(command)
    (folder / "after").write_text(AFTER)
    (folder / "init").write_text(INIT)
    (folder / "init").chmod(0o755)
    names = "\n".join(str(each.relative_to(folder)) for each in sorted(folder.rglob("*")))
    with path.open("wb") as target:
        subprocess.run(
            ["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=target, cwd=folder, check=True
        )


def qemu(image: Path, initramfs: Path, folder: Path) -> list[str]:
    """The command that starts the machine. `folder` gets console.log, exit-code and a socket."""
    bmc = f"socket,path={folder / 'bmc'}"
    return [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2"),
        *("-m", "3G", "-nodefaults", "-no-reboot", "-display", "none"),
        *("-kernel", str(image), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 oops=panic mitigations=off"),
        *("-serial", f"file:{folder / 'console.log'}", "-serial", "stdio", "-serial", f"file:{folder / 'exit-code'}"),
        # The machine's BMC is a program within the machine: see tests/simulators/machine_bmc.py.
        *("-chardev", f"{bmc},id=bmc,server=on,wait=off", "-chardev", f"{bmc},id=program"),
        *("-device", "ipmi-bmc-extern,id=bmc0,chardev=bmc", "-device", "isa-ipmi-kcs,bmc=bmc0"),
        *("-device", "virtio-serial", "-device", "virtserialport,chardev=program,name=bmc"),
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
    ]


def run(command: Sequence[str]) -> int:
    """The exit code of the command, run in the machine; its output goes to ours."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise CannotStart(f"there is no {', '.join(missing)}: {INSTALL}")
    image, release = newest_kernel()
    kept = ["export KERNEL_MACHINE=1"]
    kept += [f"export {name}={shlex.quote(os.environ[name])}" for name in KEPT if name in os.environ]
    if not sys.stdout.isatty():
        kept.append("export NO_COLOR=1")  # the command sees a terminal
    lines = [*kept, f"cd {shlex.quote(str(Path.cwd()))}", f"exec {shlex.join(command)}"]
    with tempfile.TemporaryDirectory(prefix="kernel-machine-") as name:
        folder = Path(name)
        content = folder / "content"
        content.mkdir()
        write_initramfs(folder / "initramfs", content, release, "\n".join(lines) + "\n")
        subprocess.run(qemu(image, folder / "initramfs", folder), stdin=subprocess.DEVNULL, check=False)
        told = folder / "exit-code"
        text = told.read_text().strip() if told.exists() else ""
        if text.isdigit():
            return int(text)
        console = folder / "console.log"
        sys.stderr.write(console.read_text(errors="replace") if console.exists() else "")
        return NO_EXIT_CODE


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+", help="what to run, after --")
    try:
        return run(parser.parse_args().command)
    except CannotStart as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return NO_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
