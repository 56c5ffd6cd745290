"""One p2pid instance: its configuration, its daemon as a real process, and its command line."""

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.patience import within


class Refused(Exception):
    """A command that ended with another exit status than 0; its error document is `problem`."""

    def __init__(self, command: str, status: int, stderr: str):
        super().__init__(f"{command}: exit status {status}: {stderr.strip()}")
        self.status = status
        self.stderr = stderr

    @property
    def problem(self) -> dict:
        return json.loads(self.stderr.strip().splitlines()[-1])["error"]


@dataclass
class Instance:
    """Where an instance is. It can be handed to other processes as a dictionary."""

    binary: str
    name: str
    config: str
    public_url: str
    # Where clients are asked for their certificates.
    mtls_url: str
    local: str
    certificate: str
    log: str

    @classmethod
    def made(cls, binary: str, name: str, folder: Path, ports: list[int], upstream: str, settings: str, authority: Path) -> "Instance":
        """Writes the configuration, with `p2pid init` and a file beside its own for what `init` does not ask. Certificates of clients come
        from `authority`."""
        public, local, console, mtls = ports
        public_url = f"https://127.0.0.1:{public}"
        init = [binary, "init", name, "--public-url", public_url, "--upstream", upstream, "--dir", str(folder), "--tls", "self-signed"]
        subprocess.run(init, check=True, capture_output=True, text=True)
        own = folder / f"{name}.d"
        own.mkdir()
        listeners = f'[local]\nlisten = ["127.0.0.1:{local}"]\n[console]\nlisten = ["127.0.0.1:{console}"]\n'
        listeners += f'[mtls]\nlisten = ["127.0.0.1:{mtls}"]\npublic_url = "https://127.0.0.1:{mtls}"\nca = ["{authority}"]\n'
        (own / "interop.toml").write_text(listeners + settings)
        return cls(
            binary=binary,
            name=name,
            config=str(folder / f"{name}.toml"),
            public_url=public_url,
            mtls_url=f"https://127.0.0.1:{mtls}",
            local=f"http://127.0.0.1:{local}",
            certificate=str(folder / name / "tls" / "cert.pem"),
            log=str(folder / f"{name}.log"),
        )

    def start(self) -> subprocess.Popen:
        """Starts the daemon and waits until it answers."""
        with open(self.log, "ab") as log:
            daemon = subprocess.Popen([self.binary, "-c", self.config, "run"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def answers() -> bool:
            if daemon.poll() is not None:
                raise AssertionError(f"{self.name} ended with {daemon.returncode}:\n{Path(self.log).read_text()}")
            try:
                return bool(self.runs("status"))
            except Refused:
                return False

        within(20, f"{self.name} to be ready", answers)
        return daemon

    def runs(self, *arguments: str, line: str | None = None):
        """Runs a command that must succeed, with `line` on its standard input; gives the document that it prints."""
        outcome = self.says(*arguments, line=line)
        if outcome.returncode != 0:
            raise Refused(f"p2pid {' '.join(arguments)}", outcome.returncode, outcome.stderr)
        return json.loads(outcome.stdout) if outcome.stdout.strip() else None

    def says(self, *arguments: str, line: str | None = None) -> subprocess.CompletedProcess:
        """Runs a command however it ends."""
        command = [self.binary, "-c", self.config, "--json", *arguments]
        text = None if line is None else f"{line}\n"
        stdin = {"input": text} if text is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, **stdin)

    def as_dict(self) -> dict:
        return asdict(self)
