#!/usr/bin/env bash
# The unit under a real systemd, from the README's install lines to a crash: tests/service.sh [P2PID]
#
# Runs as root, in namespaces of its own: a service manager of its own, and every folder that it writes to is memory that goes with it.
set -euo pipefail
if [ "$(id -u)" != 0 ] || ! unshare --mount --pid --net true; then
  echo "tests/service.sh needs root, and a kernel that gives it namespaces of its own"
  exit 1
fi
here=$(cd "$(dirname "$0")/.." && pwd)
p2pid=$(realpath "${1:-$here/target/debug/p2pid}")

if [ "${2:-}" != inside ]; then
  mkdir -p "$here/target/tmp"
  work=$(mktemp -d "$here/target/tmp/service.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  timeout 120 unshare --fork --pid --mount --net --uts --ipc --cgroup --kill-child bash "$0" "$p2pid" inside "$work" > "$work/manager.log" 2>&1 || true
  cat "$work/test.log" 2> /dev/null || true
  if ! [ -e "$work/passed" ]; then
    cat "$work/manager.log"
    echo "the unit does not behave under systemd"
    exit 1
  fi
  exit 0
fi

# ── nothing outside $work, which is /run/test from here on, can be written to ──
mount --make-rprivate /
cp -a /etc "$3/etc"
install -m 755 "$p2pid" "$3/p2pid"
cp -a "$here/systemd" "$3/systemd"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/test
work=/run/test
mount --bind "$3" "$work"
mount -o remount,bind,ro /
mount -t proc proc /proc
for folder in /tmp /var /root /home /usr/local/bin /usr/lib/sysusers.d; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mkdir -p /var/lib /var/log /var/tmp
mount --bind "$work/etc" /etc
mkdir -p /etc/p2pid /run/systemd/system
rm -rf /etc/systemd/system && mkdir /etc/systemd/system
# The network of this test is a loopback, and the machine's devices are not its affair.
ip link set lo up
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
  systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service systemd-sysctl.service systemd-modules-load.service \
  systemd-random-seed.service kmod-static-nodes.service; do
  ln -s /dev/null "/etc/systemd/system/$unit"
done

# What the manager starts: the test itself, as the only unit of its target.
cat > /etc/systemd/system/test.target <<'UNIT'
[Unit]
Description=the test
DefaultDependencies=no
Wants=systemd-journald.service
Requires=test.service
UNIT
cat > /etc/systemd/system/test.service <<UNIT
[Unit]
DefaultDependencies=no
After=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/bash $work/steps.sh
StandardOutput=file:$work/test.log
StandardError=file:$work/test.log
ExecStopPost=/bin/systemctl --force --force poweroff
UNIT
cat > "$work/steps.sh" <<STEPS
set -euo pipefail
here=$work built=$work/p2pid work=$work
STEPS
cat >> "$work/steps.sh" <<'STEPS'
say() { printf '  %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; journalctl --no-pager -n 60 -u 'p2pid@*'; exit 1; }
expect() { local what=$1; shift; for _ in $(seq 100); do "$@" > /dev/null 2>&1 && { say "$what"; return; }; sleep 0.1; done; fail "$what: $*"; }

# ── the README's install lines ──
install -m 755 "$built" /usr/local/bin/p2pid
install -m 644 "$here/systemd/p2pid@.service" /etc/systemd/system/
install -m 644 "$here/systemd/p2pid.sysusers.conf" /usr/lib/sysusers.d/p2pid.conf
systemd-sysusers /usr/lib/sysusers.d/p2pid.conf
systemctl daemon-reload

# ── the first start ──
p2pid init instance1 --public-url https://localhost:7443 --upstream http://127.0.0.1:8080 > /dev/null
[ "$(stat -c %U /etc/p2pid/instance1.toml)" = p2pid ] || fail "init gives the configuration to p2pid"
systemctl enable -q --now p2pid@instance1 || fail "enable --now"
say "enabled and ready: systemctl returned when the daemon had said so"
[ "$(systemctl is-active p2pid@instance1)" = active ] || fail "is-active"
main=$(systemctl show -P MainPID p2pid@instance1)
[ "$(cat /proc/$main/comm)" = p2pid ] || fail "the main process is p2pid itself"
[ "$(stat -c %U /proc/$main)" = p2pid ] || fail "it runs as p2pid"
[ "$(stat -c %U:%a /var/lib/p2pid/instance1)" = p2pid:700 ] || fail "the state folder is its own: $(stat -c %U:%a /var/lib/p2pid/instance1)"
p2pid -i instance1 --json status | grep -q '"instance": *"instance1"' || fail "root reads the status over the admin socket"
echo "a password for this test" | p2pid -i instance1 user add ops@one.example --admin --password-stdin > /dev/null 2>&1 || fail "user add"
key=$(p2pid -i instance1 --json caller add shop | grep -o '"key": *"[^"]*"' | cut -d'"' -f4)
say "administered by root over the socket"

# ── reload ──
sed -i 's/^drain = .*/drain = "9s"/; t; s/^# *drain = .*/drain = "9s"/' /etc/p2pid/instance1.toml
systemctl reload p2pid@instance1 || fail "reload"
[ "$(systemctl show -P MainPID p2pid@instance1)" = "$main" ] || fail "a reload starts nothing anew"
echo 'nonsense = 1' >> /etc/p2pid/instance1.toml
systemctl reload p2pid@instance1 || fail "reload of a wrong file"
expect "a wrong file is refused, and the status says so" sh -c 'p2pid -i instance1 --json status 2>/dev/null | grep -q "unknown key"'
sed -i '/^nonsense/d' /etc/p2pid/instance1.toml
systemctl reload p2pid@instance1

# ── a crash, and what does not heal ──
kill -9 "$main"
expect "killed, it is started again by itself" sh -c '[ "$(systemctl is-active p2pid@instance1)" = active ] && [ "$(systemctl show -P MainPID p2pid@instance1)" != '"$main"' ]'
expect "and knows what it knew" sh -c 'p2pid -i instance1 --json user list | grep -q ops@one.example'
systemctl restart p2pid@instance1 || fail "restart"
code=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $key" http://127.0.0.1:7480/nobody/)
[ "$code" = 404 ] || fail "a caller's key works after the restart: $code"
systemctl stop p2pid@instance1
[ "$(systemctl show -P Result p2pid@instance1)" = success ] || fail "stop"
say "stopped in order"

# ── moved: what the README says to copy is all there is ──
mkdir /root/copy
cp -a /etc/p2pid /root/copy/etc
cp -a /var/lib/p2pid/instance1 /root/copy/state
rm -rf /etc/p2pid/* /var/lib/p2pid/instance1
cp -a /root/copy/etc/. /etc/p2pid/
cp -a /root/copy/state /var/lib/p2pid/instance1
systemctl start p2pid@instance1 || fail "start of the copy"
code=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $key" http://127.0.0.1:7480/nobody/)
[ "$code" = 404 ] || fail "the copy knows the caller's key: $code"
p2pid -i instance1 --json user list | grep -q ops@one.example || fail "the copy knows its people"
systemctl stop p2pid@instance1
say "moved as the README says"

echo 'nonsense = 1' >> /etc/p2pid/instance1.toml
systemctl start p2pid@instance1 2> /dev/null && fail "a wrong configuration starts nothing"
sleep 2
[ "$(systemctl show -P ExecMainStatus p2pid@instance1)" = 78 ] || fail "exit status 78: $(systemctl show -P ExecMainStatus p2pid@instance1)"
[ "$(systemctl show -P NRestarts p2pid@instance1)" = 0 ] || fail "it is not started again: what is wrong does not heal by itself"
say "a wrong configuration ends the start with 78, once"
touch "$work/passed"
STEPS
export container=other
exec /lib/systemd/systemd --system --unit=test.target --log-target=console --show-status=false
