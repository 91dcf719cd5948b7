#!/usr/bin/env bash
# install.sh [EXTRA]: ~/venv with the versions that were tested, and the same Python on every node, as Ray asks for.
# EXTRA demo brings torch and what worker.train needs. The package is installed from ~/embedding-ps as it is there, so a
# later `ray up` brings changes to it. Can be called again.
set -euo pipefail
cd ~/embedding-ps
if [ ! -x ~/uv/bin/uv ]; then
    python3 -m venv ~/uv
    ~/uv/bin/pip install --quiet uv
fi
[ -x ~/venv/bin/python ] || ~/uv/bin/uv venv --quiet --python 3.11 ~/venv
~/uv/bin/uv pip install --quiet --python ~/venv -c constraints.txt 'ray[default]' -e ".${1:+[$1]}"
~/venv/bin/python -m ps.server.compiling  # the kernels, so that shards start at once
