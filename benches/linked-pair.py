#!/usr/bin/env python3
"""Two linked instances for measurements: linked-pair.py P2PID FOLDER UPSTREAM

Makes, starts and links two daemons by command line and the pages' forms, prints "RELAY-ADDRESS CALLER-KEY PID-ONE PID-TWO", and keeps them up until it is ended.
The relay also knows a peer "plain": the upstream itself, with a user name and a password, which makes one hop.
"""
import html.parser, http.cookiejar, json, os, signal, socket, ssl, subprocess, sys, time, urllib.parse, urllib.request

p2pid, folder, upstream = sys.argv[1:]
password = "a password for measurements"


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Form(html.parser.HTMLParser):
    """The fields and the action of the page's POST form."""

    def __init__(self, page):
        super().__init__()
        self.action, self.fields = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form" and attributes.get("method", "").lower() == "post" and not attributes.get("action", "").endswith("/logout"):
            self.action = attributes.get("action") or ""
        elif tag == "input" and self.action is not None and attributes.get("name"):
            self.fields[attributes["name"]] = attributes.get("value", "")


class Instance:
    def __init__(self, name):
        self.name, self.url = name, f"https://localhost:{free()}"
        self.config = f"{folder}/{name}.toml"
        subprocess.run([p2pid, "init", name, "--public-url", self.url, "--upstream", upstream, "--dir", folder], check=True, capture_output=True)
        self.log = open(f"{folder}/{name}.log", "wb")
        self.process = subprocess.Popen([p2pid, "-c", self.config, "run"], stdout=self.log, stderr=self.log)

    def runs(self, *arguments, stdin=""):
        for attempt in range(100):
            done = subprocess.run([p2pid, "-c", self.config, "--json", *arguments], input=stdin, capture_output=True, text=True)
            if done.returncode == 0:
                return json.loads(done.stdout) if done.stdout.strip() else None
            if "not_running" not in done.stderr:
                break
            time.sleep(0.1)
        sys.exit(f"{self.name}: {arguments} failed: {done.stderr}")


one, two = Instance("instance1"), Instance("instance2")
import tomllib

with open(one.config, "rb") as file:
    settings = tomllib.load(file)
with open(two.config, "rb") as file:
    state = os.path.join(folder, tomllib.load(file)["instance"]["state_dir"])
two.runs("user", "add", "ops@example.com", "--admin", "--password-stdin", stdin=password + "\n")
app = two.runs("ib", "create", "instance1", "--peer-url", one.url, "--scope", "p2pi")
one.runs("peer", "create", "instance2", "--url", two.url, "--client-id", app["client_id"], "--client-secret-stdin", "--scope", "p2pi",
         "--ca", f"{state}/tls/cert.pem", stdin=app["client_secret"] + "\n")
one.runs("peer", "create", "plain", "--url", upstream, "--username", "bench", "--password-stdin", stdin=password + "\n")
key = one.runs("caller", "add", "bench")["key"]

context = ssl._create_unverified_context()
browser = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
answer = browser.open(one.runs("peer", "request", "instance2")["url"])
for more in ({}, {"username": "ops@example.com", "password": password}, {"decision": "allow"}):
    form = Form(answer.read().decode())
    where = urllib.parse.urljoin(answer.geturl(), form.action)
    origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(where))
    data = urllib.parse.urlencode(form.fields | more).encode()
    answer = browser.open(urllib.request.Request(where, data, {"Origin": origin, "Sec-Fetch-Site": "same-origin"}))
if one.runs("peer", "show", "instance2")["state"] != "linked":
    sys.exit("the two instances did not link")

relay = next(address for address in settings["local"]["listen"] if not address.startswith("unix:"))
print(relay, key, one.process.pid, two.process.pid, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
try:
    signal.pause()
finally:
    for instance in (one, two):
        instance.process.terminate()
    for instance in (one, two):
        instance.process.wait()
