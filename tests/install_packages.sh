#!/usr/bin/env bash
# Debian packages that only tests and benchmarks use; those that need one skip without it. Run as root.
set -euo pipefail
packages=(
    iproute2 # ip and tc: the shaped link of `python -m benchmarks link`, the machines of tests/machines.py
    prometheus # with promtool: scrapes a running service, checks rules and alerts (tests/observe)
    tmux     # a terminal for tests of `psctl top`
    openssh-server # sshd: those machines
    rsync # those machines: `ray up` copies files with it
)
apt-get update -qq
apt-get install --yes --quiet --no-install-recommends "${packages[@]}"
