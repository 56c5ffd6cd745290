"""The browser part of a link: plain HTTP with a cookie jar, following redirects step by step."""

from urllib.parse import urljoin

import requests

from lib.markup import Form, Reader

MOST_REDIRECTS = 15


class Page:
    """What a browser shows: an address, a status, text and forms."""

    def __init__(self, browser: "Browser", url: str, response: requests.Response | None):
        self.browser = browser
        self.url = url
        self.status = response.status_code if response is not None else None
        self.read = Reader(response.text if response is not None else "")
        self.text = self.read.text

    @property
    def is_left(self) -> bool:
        """Whether the browser was sent to an address where nobody listens, the callback of a client under test."""
        return self.status is None

    def form(self, field: str | None = None) -> Form:
        """The form that has that field; the first one when none is named."""
        for form in self.read.forms:
            if field is None or field in form.fields or any(field == name for name, _, _ in form.buttons):
                return form
        raise AssertionError(f"no form with {field!r} at {self.url} ({self.status}): {self.text[:300]}")

    def submit(self, form: Form, button: str | None = None, **fields: str) -> "Page":
        """Fills in fields and presses a button."""
        unknown = [name for name in fields if name not in form.fields and name not in form.choices]
        assert not unknown, f"the form at {self.url} has no {unknown}, only {sorted(form.fields)}"
        data = {**form.fields, **fields, **(form.button(button) if button else {})}
        return self.browser.send(form.method, urljoin(self.url, form.action or self.url), data, self.url)

    def follow(self, text: str) -> "Page":
        """Follows the link with that text."""
        assert text in self.read.links, f"no link {text!r} at {self.url}, only {sorted(self.read.links)}"
        return self.browser.open(urljoin(self.url, self.read.links[text]))


class Browser:
    """One person's browser. It stops at addresses that begin with `leaves_at`."""

    def __init__(self, trusted: str, leaves_at: str | None = None):
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = trusted
        self.session.headers["Accept"] = "text/html"
        self.leaves_at = leaves_at

    def open(self, url: str) -> Page:
        return self.send("get", url)

    def send(self, method: str, url: str, data: dict[str, str] | None = None, referer: str | None = None) -> Page:
        headers = {"Referer": referer} if referer else {}
        for _ in range(MOST_REDIRECTS):
            if self.leaves_at and url.startswith(self.leaves_at):
                return Page(self, url, None)
            payload = {"data": data} if method == "post" else {"params": data}
            response = self.session.request(method, url, headers=headers, allow_redirects=False, timeout=20, **payload)
            if not response.is_redirect:
                return Page(self, url, response)
            assert method == "get" or response.status_code in (302, 303), f"{response.status_code} after a POST to {url}"
            method, data, url = "get", None, urljoin(url, response.headers["Location"])
        raise AssertionError(f"more than {MOST_REDIRECTS} redirects, the last to {url}")
