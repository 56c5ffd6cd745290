"""HTML as far as pages with plain forms need it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Form:
    """A form: where it goes, what it holds, and its buttons as (name, value, text)."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)
    buttons: list[tuple[str, str, str]] = field(default_factory=list)

    def button(self, wanted: str) -> dict[str, str]:
        """What the button with that name, value or text adds to the form."""
        for name, value, text in self.buttons:
            if wanted in (name, value, text):
                return {name: value} if name else {}
        raise AssertionError(f"no button {wanted!r} in the form, only {self.buttons}")


class Reader(HTMLParser):
    """Collects the forms, the links and the text of a page."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.words: list[str] = []
        self._form: Form | None = None
        self._button: list[str] | None = None
        self._select: str | None = None
        self._textarea: str | None = None
        self._href: str | None = None
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes) -> None:
        given = {name: value or "" for name, value in attributes}
        self._hidden = tag in ("style", "script")
        if tag == "a":
            self._href = given.get("href")
        elif tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is None:
            return
        elif tag == "input":
            self._input(self._form, given)
        elif tag == "button" and given.get("type", "submit") == "submit":
            self._form.buttons.append((given.get("name", ""), given.get("value", ""), ""))
            self._button = []
        elif tag == "select":
            self._select = given.get("name", "")
        elif tag == "textarea":
            self._textarea = given.get("name", "")
            self._form.fields[self._textarea] = ""
        elif tag == "option" and self._select:
            value = given.get("value", "")
            if "selected" in given or self._select not in self._form.fields:
                self._form.fields[self._select] = value

    @staticmethod
    def _input(form: Form, given: dict[str, str]) -> None:
        kind, name, value = given.get("type", "text").lower(), given.get("name", ""), given.get("value", "")
        if kind == "submit":
            form.buttons.append((name, value, value))
        elif kind in ("checkbox", "radio"):
            form.choices.setdefault(name, []).append(value or "on")
            if "checked" in given:
                form.fields[name] = value or "on"
        elif name:
            form.fields[name] = value

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        if tag == "form":
            self._form = None
        elif tag == "button" and self._button is not None and self._form is not None:
            name, value, _ = self._form.buttons[-1]
            self._form.buttons[-1] = (name, value, " ".join("".join(self._button).split()))
            self._button = None
        elif tag == "select":
            self._select = None
        elif tag == "textarea":
            self._textarea = None
        elif tag == "a":
            self._href = None

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        self.words.append(data)
        if self._button is not None:
            self._button.append(data)
        if self._textarea and self._form is not None:
            self._form.fields[self._textarea] += data
        if self._href is not None:
            self.links[" ".join(data.split())] = self._href

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
