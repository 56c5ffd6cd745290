"""Running scenarios: each is a function, and says `ok` or `FAILED` in one line on standard output. play.py reads these lines."""

import sys
import traceback
from typing import Callable


def play(suite: str, scenarios: list[Callable[..., None]], *arguments: object, after: Callable[[], None] = lambda: None) -> None:
    """Runs the scenarios in order, and `after` behind each; a failed one does not keep the next from running."""
    for scenario in scenarios:
        name = scenario.__name__.replace("_", "-")
        try:
            scenario(*arguments)
        except Exception as error:  # whatever goes wrong in a scenario is its result
            traceback.print_exc(file=sys.stderr)
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAILED {suite}/{name}: {why[:600]}", flush=True)
        else:
            print(f"ok {suite}/{name}", flush=True)
        after()
