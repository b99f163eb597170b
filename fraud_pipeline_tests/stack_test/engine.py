"""A Docker engine: the one that runs already, or one of our own whose everything lies in one folder and ends with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from fraud_pipeline_tests.stack_test.commands import StackTestFailed, run, succeeds, until

PACKAGES: Final = ("docker.io", "docker-compose", "debootstrap", "iptables", "iproute2")
"""Debian's names."""
PROGRAMS: Final = ("dockerd", "docker", "debootstrap", "iptables", "ip")
INSTALL_S: Final = 900.0
START_S: Final = 120.0
STOP_S: Final = 120.0
"""It ends its containers first."""
ASK_S: Final = 60.0
FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
BRIDGE: Final = "docker0"
NO_RULES: Final = {
    "filter": "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n",
    "nat": "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n",
}
"""iptables-restore leaves a table alone that it is not given, and iptables-save leaves one out that nobody has used."""


class Engine:
    """`start` finds or starts it; `environment` is what the docker commands need; `stop` ends what `start` started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = dict(os.environ) | {"COMPOSE_HTTP_TIMEOUT": "600"}
        self.is_own = False
        self._process: subprocess.Popen[bytes] | None = None
        self._rules = ""
        self._forwarding = ""

    def start(self) -> str:
        """Which one it is, in a line."""
        if not self._answers():
            install()
            self._start_own()
        if not succeeds(("docker", "buildx", "version"), timeout_s=ASK_S, environment=self.environment):
            self.environment["DOCKER_BUILDKIT"] = "0"  # without buildx the builder inside the engine is all there is
        version = self.docker("version", "--format", "{{.Server.Version}}").strip()
        driver = self.docker("info", "--format", "{{.Driver}}").strip()
        return f"Docker {version}, {driver}, {'started by this test' if self.is_own else 'which was running'}"

    def docker(self, *arguments: str, timeout_s: float = ASK_S) -> str:
        return run(("docker", *arguments), timeout_s=timeout_s, environment=self.environment)

    def stop(self) -> None:
        """End our own and everything that it has left on the machine; another's is left as it is."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_S)
        for mounted in sorted(_mounts_below(self.folder), reverse=True):
            subprocess.run(("umount", "--lazy", mounted), check=False, capture_output=True, timeout=ASK_S)
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(("ip", "link", "delete", BRIDGE), check=False, capture_output=True, timeout=ASK_S)
        run(("iptables-restore",), timeout_s=ASK_S, given=self._rules)
        FORWARDING.write_text(self._forwarding)

    def said(self) -> str:
        """The end of its log."""
        log = self.folder / "dockerd.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""

    # Within

    def _answers(self) -> bool:
        return succeeds(("docker", "info"), timeout_s=ASK_S, environment=self.environment)

    def _start_own(self) -> None:
        if os.geteuid() != 0:
            raise StackTestFailed("No Docker engine runs, and starting one needs root. Start it, or be root.")
        self.folder.mkdir(parents=True, exist_ok=True)
        saved = run(("iptables-save",), timeout_s=ASK_S)
        self._rules = saved + "".join(rules for table, rules in NO_RULES.items() if f"*{table}\n" not in saved)
        self._forwarding = FORWARDING.read_text()
        socket = f"unix://{self.folder}/docker.sock"
        command = (
            "dockerd", "--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec"),
            "--pidfile", str(self.folder / "dockerd.pid"), "--host", socket, "--mtu", str(_mtu()),
        )  # fmt: skip
        with (self.folder / "dockerd.log").open("wb") as log:
            # In a group of its own: an interrupt from the keyboard is ours to handle, while the engine still answers.
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0)
        self.is_own = True
        self.environment["DOCKER_HOST"] = socket
        try:
            until(self._started, "dockerd", timeout_s=START_S)
        except StackTestFailed as err:
            raise StackTestFailed(f"{err}\n{self.said()}") from err

    def _started(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise StackTestFailed(f"dockerd ended with {self._process.returncode}")
        return self._answers()


def install() -> None:
    """Debian's packages where something is missing. StackTestFailed where that is not for us to do."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if compose_command() is None:
        missing.append("docker-compose")
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise StackTestFailed(f"{', '.join(missing)}: not installed. Install Docker with Compose, and debootstrap.")
    run(("apt-get", "update", "-qq"), timeout_s=INSTALL_S)
    quiet = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    run(
        ("apt-get", "install", "-qq", "--yes", "--no-install-recommends", *PACKAGES),
        timeout_s=INSTALL_S,
        environment=quiet,
    )


def compose_command() -> tuple[str, ...] | None:
    """Compose 2 is docker's plugin, Compose 1 a program of its own."""
    if succeeds(("docker", "compose", "version"), timeout_s=ASK_S):
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else None


def _mounts_below(folder: Path) -> list[str]:
    found = (line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())
    return [path for path in found if path.startswith(f"{folder}/")]


def _mtu() -> int:
    """Of the interface of the default route: a bridge with a larger one would lose what leaves the machine."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination = line.split()[:2]
        if destination == "00000000":
            return int(Path("/sys/class/net", interface, "mtu").read_text())
    return 1500
