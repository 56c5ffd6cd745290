"""Sets the stage, plays every suite, and counts: `play.py BINARY LIBRARIES FOLDER` (run.sh calls it).

The stage is two daemons with an application behind each. The suites run side by side, each as a process of its own that prints one line
per scenario. scenarios.txt is the list of what has to be played; a scenario that did not say `ok` has failed, also when it said nothing.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from lib import application, certificates, ports
from lib.instance import Instance
from lib.world import World

HERE = Path(__file__).resolve().parent
SETTINGS = '[scopes]\nreports = "Read reports"\n[[route]]\npath = "/reports"\nupstream = "{upstream}"\nscopes = ["reports"]\n'
SUITES = {
    "openid-client": ["node", "clients/openid-client/main.mjs"],
    "authlib": [sys.executable, "-m", "clients.with_authlib"],
    "oidc-provider": [sys.executable, "-m", "servers.play_oidc_provider"],
    "strict-oidc-provider": [sys.executable, "-m", "servers.play_strict_oidc_provider"],
    "django-oauth-toolkit": [sys.executable, "-m", "servers.play_django_oauth_toolkit"],
}
LONGEST_SUITE = 200
# Everything that could be a token, a code or a secret; identifiers of requests and records are shorter, and words have neither digits nor
# capitals.
SECRET = re.compile(r"(?=[a-z_-]*[A-Z0-9])[A-Za-z0-9_-]{33,}")


def stage(binary: str, libraries: Path, folder: Path) -> World:
    """Two configured instances, which do not run yet."""
    held = ports.free(8)
    authority = certificates.made(folder)
    made = {}
    for name, own in (("one", held[:4]), ("two", held[4:])):
        port = application.started().server_address[1]
        upstream = f"http://127.0.0.1:{port}"
        made[name] = Instance.made(binary, name, folder, own, upstream, SETTINGS.format(upstream=upstream), authority)
    people = {"login": "ops@two.example", "password": "a password for these tests"}
    return World(**made, folder=folder, libraries=libraries, trusted=str(folder / "trusted.pem"), **people)


def prepared(world: World) -> Path:
    """Trust and people; gives the file that tells the suites."""
    Path(world.trusted).write_text("".join(Path(one.certificate).read_text() for one in (world.one, world.two)))
    for instance in (world.one, world.two):
        instance.runs("user", "add", world.login, "--admin", "--password-stdin", line=world.password)
    told = {**vars(world), "one": world.one.as_dict(), "two": world.two.as_dict()}
    file = world.folder / "world.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(told, default=str))
    return file


class Suite:
    """A suite that runs; what it says is collected."""

    def __init__(self, name: str, command: list[str], world: World, told: Path):
        self.name = name
        self.world = world
        self.results: dict[str, str] = {}
        self.lines: list[str] = []
        self.seen = self._ends()
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": world.trusted, "NODE_NO_WARNINGS": "1", "PYTHON": sys.executable}
        self.errors = open(world.folder / f"{name}.errors", "wb")
        self.process = subprocess.Popen(
            [*command, str(told)],
            cwd=HERE,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            verdict, _, rest = line.strip().partition(" ")
            name = rest.split(":")[0].strip()
            if verdict not in ("ok", "FAILED") or not name.startswith(f"{self.name}/"):
                continue
            print(hidden(line.strip()), flush=True)
            self.results[name] = verdict
            if verdict == "FAILED":
                self._show_logs()
            self.seen = self._ends()

    def _ends(self) -> dict[str, int]:
        return {instance.name: Path(instance.log).stat().st_size for instance in (self.world.one, self.world.two)}

    def _show_logs(self) -> None:
        """What the daemons said since this suite's last result; other suites' lines are among it."""
        for instance in (self.world.one, self.world.two):
            with open(instance.log, "rb") as log:
                log.seek(self.seen[instance.name])
                said = log.read().decode("utf-8", "replace").splitlines()
            print("".join(f"    {instance.name}: {hidden(line)}\n" for line in said[-40:]), end="", flush=True)

    def ended(self, deadline: float) -> None:
        """Waits until the suite has ended by itself, and ends whatever it has started."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"{self.name} has not ended within {LONGEST_SUITE} s", flush=True)
        self.kill()
        self.reader.join()
        self.errors.close()
        if self.process.returncode != 0:
            said = Path(self.errors.name).read_text(errors="replace").splitlines()[-30:]
            print(f"{self.name} ended with {self.process.returncode}:\n" + "\n".join(f"    {hidden(line)}" for line in said), flush=True)

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def hidden(line: str) -> str:
    return SECRET.sub("…", line)


def wanted(suites: list[str]) -> list[str]:
    """What scenarios.txt has for these suites."""
    lines = [line.strip() for line in (HERE / "scenarios.txt").read_text().splitlines()]
    scenarios = [line for line in lines if line and not line.startswith("#")]
    unknown = [scenario for scenario in scenarios if scenario.split("/")[0] not in SUITES]
    assert not unknown, f"scenarios.txt has suites that are not there: {unknown}"
    return [scenario for scenario in scenarios if scenario.split("/")[0] in suites]


def count(results: dict[str, str], suites: list[str]) -> int:
    """Says how it ended; the exit status."""
    expected = wanted(suites)
    for name in expected:
        if name not in results:
            print(f"FAILED {name}: it did not run")
    for name in results.keys() - set(expected):
        print(f"FAILED {name}: it is not in scenarios.txt")
    passed = sum(results.get(name) == "ok" for name in expected)
    failed = len(set(expected) | results.keys()) - passed
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


def main() -> int:
    binary, libraries, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    chosen = sys.argv[4:] or list(SUITES)
    world = stage(binary, libraries, folder)
    daemons: list[subprocess.Popen] = []
    suites: list[Suite] = []
    try:
        for instance in (world.one, world.two):
            daemons.append(instance.start())
        told = prepared(world)
        deadline = time.monotonic() + LONGEST_SUITE
        suites = [Suite(name, SUITES[name], world, told) for name in chosen]
        for suite in suites:
            suite.ended(deadline)
    finally:
        for suite in suites:
            suite.kill()
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(30)
    return count({name: verdict for suite in suites for name, verdict in suite.results.items()}, chosen)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
