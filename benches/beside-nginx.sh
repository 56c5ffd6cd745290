#!/usr/bin/env bash
# The whole chain beside nginx doing the same: a plain listener that adds a bearer token, HTTPS to a second one that checks it, an
# application behind. Both chains run in turn on the same cores with the same load; the result is a ratio within one run.
#
#   benches/beside-nginx.sh [SECONDS] [CONNECTIONS]
#
# Needs nginx and wrk (Debian: nginx-light, wrk) and a release build. Reads CPU time from /proc, so that a noisy machine disturbs less.
# With strace it also counts system calls.
set -euo pipefail
seconds=${1:-5} connections=${2:-32}
here=$(cd "$(dirname "$0")/.." && pwd)
p2pid=${P2PID:-$here/target/release/p2pid}
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT

free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
app=$(free) near=$(free) far=$(free)

# ── the application, and nginx as relay and gateway ──────────────────────────────────────────────────────────
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
common="daemon off; pid $work/NAME.pid; error_log $work/error.log crit; worker_processes 1; events { worker_connections 4096; }"
http="access_log off; keepalive_requests 1000000; client_body_temp_path $work; proxy_temp_path $work; fastcgi_temp_path $work; uwsgi_temp_path $work; scgi_temp_path $work;"
cat > "$work/app.conf" <<CONF
${common/NAME/app}
http { $http server { listen 127.0.0.1:$app backlog=4096; location / { return 200 "hello from the application"; } } }
CONF
cat > "$work/near.conf" <<CONF
${common/NAME/near}
http { $http upstream far { server localhost:$far; keepalive 256; keepalive_requests 1000000; }
  server { listen 127.0.0.1:$near backlog=4096;
    location /instance2/ { proxy_pass https://far/p2pi/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      proxy_set_header Authorization "Bearer 0123456789abcdef0123456789abcdef"; proxy_ssl_trusted_certificate $work/cert.pem; proxy_ssl_verify on;
      proxy_ssl_name localhost; proxy_ssl_session_reuse on; } } }
CONF
cat > "$work/far.conf" <<CONF
${common/NAME/far}
http { $http map \$http_authorization \$who { default ""; "Bearer 0123456789abcdef0123456789abcdef" "instance1"; }
  upstream app { server 127.0.0.1:$app; keepalive 256; keepalive_requests 1000000; }
  server { listen 127.0.0.1:$far ssl backlog=4096; ssl_certificate $work/cert.pem; ssl_certificate_key $work/key.pem;
    location /p2pi/ { if (\$who = "") { return 401; } proxy_pass http://app/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Authorization ""; proxy_set_header P2PI-Client \$who; } } }
CONF
for name in app near far; do nginx -c "$work/$name.conf" -p "$work" & pids+=($!); done

# ── p2pid as relay and gateway, linked by the same steps as in the README ────────────────────────────────────
"$here/benches/linked-pair.py" "$p2pid" "$work" "http://127.0.0.1:$app" > "$work/pair" &
pids+=($!)
for _ in $(seq 200); do [ -s "$work/pair" ] && break; sleep 0.1; done
read -r relay key pid_one pid_two < "$work/pair"

cpu() { # user and system ticks of all processes whose parent or self is one of these
  local total=0 id
  for id in "$@"; do
    for each in "$id" $(pgrep -P "$id" || true); do
      read -r user system < <(awk '{print $14, $15}' "/proc/$each/stat")
      total=$((total + user + system))
    done
  done
  echo "$total"
}
measure() { # URL, then the processes; prints requests per second and microseconds of CPU per request
  local url=$1; shift
  local before after
  before=$(cpu "$@")
  wrk -t1 -c"$connections" -d"${seconds}s" -H "Authorization: Bearer $key" "$url" > "$work/wrk"
  after=$(cpu "$@")
  awk -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" '/requests in/ {n = $1} /Requests\/sec/ {rate = $2} /Non-2xx/ {bad = $0}
    END {printf "%.0f %.1f %s\n", rate, ticks / hertz * 1e6 / n, bad}' "$work/wrk"
}
printf '%-28s %10s %14s\n' "" "req/s" "CPU µs/request"
ratio() { paste -d' ' "$work/a" "$work/b" | awk '{printf "p2pid beside nginx: %.2f of its rate, %.2f of its CPU per request\n\n", $3 / $1, $4 / $2}'; }
for _ in 1 2 3; do
  read -r rate micros bad < <(measure "http://127.0.0.1:$near/instance2/orders" "${pids[1]}" "${pids[2]}")
  printf '%-28s %10s %14s %s\n' "nginx, nginx" "$rate" "$micros" "$bad"; echo "$rate $micros" > "$work/a"
  read -r rate micros bad < <(measure "http://$relay/instance2/orders" "$pid_one" "$pid_two")
  printf '%-28s %10s %14s %s\n' "p2pid relay, p2pid gateway" "$rate" "$micros" "$bad"; echo "$rate $micros" > "$work/b"
  ratio
done

# ── system calls: counted, since their price differs from host to host; strace slows both, so that no time is taken here ──
if command -v strace >/dev/null; then
  counted() { # name, URL, then the processes
    local name=$1 url=$2; shift 2
    local attach=() each
    for each in "$@"; do attach+=(-p "$each"); done
    strace -c -f -o "$work/calls" "${attach[@]}" 2>/dev/null & local tracer=$!
    sleep 1
    wrk -t1 -c"$connections" -d"${seconds}s" -H "Authorization: Bearer $key" "$url" > "$work/wrk"
    kill -INT "$tracer"; wait "$tracer" || true
    awk -v name="$name" 'FNR == NR {if (/requests in/) n = $1; next} $NF == "total" {printf "%-28s %10.1f system calls per request\n", name, $4 / n}' \
      "$work/wrk" "$work/calls"
  }
  counted "nginx, nginx" "http://127.0.0.1:$near/instance2/orders" $(pgrep -P "${pids[1]}") $(pgrep -P "${pids[2]}")
  counted "p2pid relay, p2pid gateway" "http://$relay/instance2/orders" "$pid_one" "$pid_two"
fi
