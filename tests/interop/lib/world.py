"""What every suite is told: the two instances, who may log in, what is trusted. It comes as a file that only its owner may read."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from lib.browser import Browser, Page
from lib.instance import Instance


@dataclass
class World:
    """`one` calls others, `two` is called."""

    one: Instance
    two: Instance
    folder: Path
    libraries: Path
    trusted: str
    login: str
    password: str

    @classmethod
    def told(cls) -> "World":
        """The world of this process, from the file that its first argument names."""
        told = json.loads(Path(sys.argv[1]).read_text())
        one, two = Instance(**told.pop("one")), Instance(**told.pop("two"))
        folder, libraries = Path(told.pop("folder")), Path(told.pop("libraries"))
        return cls(one=one, two=two, folder=folder, libraries=libraries, **told)

    def decides(self, url: str, leaves_at: str, decision: str = "allow") -> str:
        """Opens an authorization URL of `two`, logs in, presses Allow or Decline; gives the address where the browser leaves to. With
        `not-asked` it has to leave without the question."""
        page = Browser(self.trusted, leaves_at).open(url)
        page = self.logs_in(page)
        if decision != "not-asked":
            page = page.submit(page.form("decision"), decision)
        assert page.is_left, f"the browser is at {page.url} ({page.status}): {page.text[:300]}"
        return page.url

    def logs_in(self, page: Page) -> Page:
        """Fills in the log-in page of one of ours."""
        return page.submit(page.form("username"), username=self.login, password=self.password)
