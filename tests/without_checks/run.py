"""Builds the copy of the tree that misses checks, and runs the tests that have to notice. See ../without_checks.sh."""

import json
import os
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "without-checks"
TREE = WORK / "tree"
# A test takes seconds. One that hangs has noticed nothing.
LONGEST = 120


class Wrong(Exception):
    """Something is not as it has to be."""


@dataclass
class Entry:
    """A check, what stands in its place, and the tests that fail then, each with words of its failure."""

    name: str
    file: str
    check: str
    without: str
    fails: dict

    def planted(self, text, condition):
        """The file's text, with the check skipped where `condition` holds."""
        if text.count(self.check) != 1:
            raise Wrong(f"{self.name}: {self.file} has its check {text.count(self.check)} times, and should once")
        return text.replace(self.check, self.without.replace("WITHOUT", condition))


def entries(names):
    found = {}
    for file in sorted((ROOT / "tests" / "without_checks").glob("*.toml")):
        entry = tomllib.loads(file.read_text())
        found[file.stem] = Entry(file.stem, entry["file"], entry["check"], entry["without"], entry["fails"])
    missing = [name for name in names if name not in found]
    if missing:
        raise Wrong(f"tests/without_checks/ has no {', '.join(missing)}; it has {', '.join(found)}")
    return [found[name] for name in names or found]


def renumbered(name, text):
    """As another version, which the build keeps apart from what it has made of the tree itself."""
    ours = re.compile(r'^name = "p2pid"\nversion = "[0-9.]+', re.MULTILINE)
    renumbered, times = ours.subn(lambda found: found[0] + "+without-checks", text)
    if times != 1:
        raise Wrong(f"{name} names p2pid with its version {times} times, and should once")
    return renumbered


def copy(planted, condition):
    """Makes the copy anew. What does not change keeps its time, so that only what changes is compiled."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    names = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    for old in [path for path in TREE.rglob("*") if path.is_file() and str(path.relative_to(TREE)) not in names]:
        old.unlink()
    for name in names:
        source, target = ROOT / name, TREE / name
        content = source.read_bytes()
        for entry in (entry for entry in planted if entry.file == name):
            content = entry.planted(content.decode(), condition(entry)).encode()
        if name in ("Cargo.toml", "Cargo.lock"):
            content = renumbered(name, content.decode()).encode()
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(source.stat().st_mode)


def built():
    """Builds the copy; where each test is: by its function's name, its binary and its whole name."""
    # The libraries are those of the builds beside it; the programs are not put among theirs.
    environment = {**os.environ, "CARGO_BUILD_BUILD_DIR": str(ROOT / "target"), "CARGO_TARGET_DIR": str(WORK / "target")}
    command = [os.environ.get("CARGO", "cargo"), "test", "--locked", "--lib", "--test", "it", "--no-run", "--message-format=json-render-diagnostics"]
    build = subprocess.run(command, cwd=TREE, env=environment, stdout=subprocess.PIPE, text=True)
    if build.returncode != 0:
        raise Wrong("the copy does not compile, which shows nothing")
    made = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
    places = {}
    for binary in [message["executable"] for message in made if message.get("executable") and message["profile"]["test"]]:
        listed = subprocess.run([binary, "--list", "--format=terse"], cwd=TREE, check=True, capture_output=True, text=True)
        for line in listed.stdout.splitlines():
            if line.endswith(": test"):
                test = line.removesuffix(": test")
                places.setdefault(test.rsplit("::", 1)[-1], []).append((binary, test))
    return places


def place(places, test):
    if len(places.get(test, [])) != 1:
        raise Wrong(f"there are {len(places.get(test, []))} tests called {test}, and there should be one")
    return places[test][0]


def run(binary, tests, without):
    environment = {**os.environ, "P2PID_WITHOUT": without, "RUST_BACKTRACE": "0"}
    try:
        return subprocess.run([binary, "--exact", *tests], cwd=TREE, env=environment, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise Wrong(f"without {without or 'nothing'}: {', '.join(tests)} did not end in {LONGEST} s") from None


def notices(places, entry, test):
    """The test fails without the check, by an assertion of its own, for the reason that the entry names."""
    binary, whole = place(places, test)
    ran, words = run(binary, [whole], entry.name), entry.fails[test]
    said = ran.stdout + ran.stderr
    if ran.returncode == 0:
        raise Wrong(f"{entry.name}: {test} passes without the check")
    if ran.returncode != 101 or f"test {whole} ... FAILED" not in said or "panicked at" not in said:
        raise Wrong(f"{entry.name}: {test} ended, but not by failing ({ran.returncode}):\n{said}")
    if words not in said:
        raise Wrong(f"{entry.name}: {test} fails, but does not say {words!r}:\n{said}")
    print(f"  without {entry.name}: {test} fails", flush=True)


def passes(places, planted):
    """With every check in its place the same tests pass."""
    by_binary = {}
    for test in sorted({test for entry in planted for test in entry.fails}):
        binary, whole = place(places, test)
        by_binary.setdefault(binary, []).append(whole)
    for binary, tests in by_binary.items():
        ran = run(binary, tests, "")
        if ran.returncode != 0 or f"test result: ok. {len(tests)} passed" not in ran.stdout:
            raise Wrong(f"with all checks in place some of these do not pass:\n{ran.stdout}{ran.stderr}")
        print(f"  with all checks: {len(tests)} tests of {Path(binary).name} pass", flush=True)


def all_of(jobs):
    """Runs them at once, as many as there are cores, and tells of all that went wrong."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(job) for job in jobs]
    wrong = [str(job.exception()) for job in running if isinstance(job.exception(), Wrong)]
    others = [job.exception() for job in running if job.exception() and not isinstance(job.exception(), Wrong)]
    if others:
        raise others[0]
    if wrong:
        raise Wrong("\n".join(wrong))


def is_named(entry):
    return f'std::env::var_os("P2PID_WITHOUT").is_some_and(|name| name == "{entry.name}")'


def main(arguments):
    single = "--single" in arguments
    planted = entries([name for name in arguments if name != "--single"])
    if single:
        copy([], None)
        passes(built(), planted)
    for group in [[entry] for entry in planted] if single else [planted]:
        copy(group, (lambda entry: "true") if single else is_named)
        places = built()
        if not single:
            passes(places, group)
        all_of([lambda entry=entry, test=test: notices(places, entry, test) for entry in group for test in entry.fails])
    print(f"without each of {len(planted)} checks its tests fail")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Wrong as wrong:
        sys.exit(f"tests/without_checks.sh: {wrong}")
