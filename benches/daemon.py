#!/usr/bin/env python3
"""What two real daemons cost: start to ready, memory, and calls through one hop and through the whole chain, beside the bare upstream.

    benches/daemon.py [P2PID] [SECONDS] [CONNECTIONS]

Needs nginx (the upstream) and wrk (Debian: nginx-light, wrk) and a release build. Every row is measured in turn, three times over, on the same
cores; the ratios within one run are what counts. CPU time is the kernel's, of the daemons alone.
"""
import os, re, shutil, socket, statistics, subprocess, sys, tempfile, time, urllib.request

here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
p2pid = sys.argv[1] if len(sys.argv) > 1 else f"{here}/target/release/p2pid"
seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
connections = int(sys.argv[3]) if len(sys.argv) > 3 else 32
folder = tempfile.mkdtemp()
children = []


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) / 1024


def load(url, key, pids):
    before = cpu(pids)
    output = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {key}", url], capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in output:
        sys.exit(f"{url} failed:\n{output}")
    requests = int(re.search(r"(\d+) requests in", output).group(1))
    return float(re.search(r"Requests/sec:\s+([\d.]+)", output).group(1)), (cpu(pids) - before) / requests * 1e6


def start_to_ready():
    """A daemon that has run before: from the start of its process to 200 at /readyz, in milliseconds."""
    place = f"{folder}/alone"
    os.makedirs(place)
    subprocess.run([p2pid, "init", "alone", "--public-url", f"https://localhost:{free()}", "--upstream", "http://127.0.0.1:1", "--dir", place], check=True, capture_output=True)
    with open(f"{place}/alone.toml") as file:
        console = re.search(r'\[console\].*?listen\s*=\s*\["([^"]+)"', file.read(), re.S).group(1)
    times = []
    for turn in range(11):
        began = time.perf_counter()
        child = subprocess.Popen([p2pid, "-c", f"{place}/alone.toml", "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                if urllib.request.urlopen(f"http://{console}/readyz", timeout=1).status == 200:
                    break
            except OSError:
                time.sleep(0.0005)
        times.append((time.perf_counter() - began) * 1000)
        idle = memory(child.pid)
        child.terminate()
        child.wait()
    # The first start made the database and the certificate.
    return times[0], statistics.median(times[1:]), idle


def main():
    first, again, idle = start_to_ready()
    print(f"start to ready: {again:.0f} ms (median of 10), {first:.0f} ms the first time; memory then: {idle:.1f} MB\n")

    app = free()
    places = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(f"{folder}/app.conf", "w") as file:
        file.write(f"daemon off; pid {folder}/app.pid; error_log {folder}/error.log crit; worker_processes 1; events {{ worker_connections 4096; }}\n"
                   f"http {{ access_log off; keepalive_requests 1000000; {places}\n"
                   f"server {{ listen 127.0.0.1:{app} backlog=4096; location / {{ return 200 'hello from the application'; }} }} }}\n")
    children.append(subprocess.Popen(["nginx", "-c", f"{folder}/app.conf", "-p", folder]))
    upstream = f"http://127.0.0.1:{app}"
    pair = subprocess.Popen([f"{here}/benches/linked-pair.py", p2pid, folder, upstream], stdout=subprocess.PIPE, text=True)
    children.append(pair)
    relay, key, one, two = pair.stdout.readline().split()
    print(f"memory of two linked daemons, idle: {memory(one):.1f} and {memory(two):.1f} MB")
    host, port = relay.rsplit(":", 1)
    idle = []
    for _ in range(1000):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(b"GET /plain/x HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n" % (relay.encode(), key.encode()))
        connection.recv(4096)
        idle.append(connection)
    print(f"memory of the first with 1,000 idle connections: {memory(one):.1f} MB\n")
    for connection in idle:
        connection.close()

    rows = [
        ("bare upstream", f"{upstream}/orders", []),
        ("one hop: relay", f"http://{relay}/plain/orders", [one]),
        ("whole chain: relay, TLS, gateway", f"http://{relay}/instance2/orders", [one, two]),
    ]
    print(f"{'':34}{'calls/s':>10}{'beside bare':>13}{'CPU µs/call':>13}")
    for _ in range(3):
        bare = None
        for name, url, pids in rows:
            rate, micros = load(url, key, pids)
            bare = bare or rate
            print(f"{name:34}{rate:>10.0f}{rate / bare:>13.2f}{micros:>13.1f}")
        print()


try:
    main()
finally:
    for child in children:
        child.terminate()
    for child in children:
        child.wait()
    shutil.rmtree(folder, ignore_errors=True)
