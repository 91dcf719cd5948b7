#!/usr/bin/env bash
# local_ssd.sh DIRECTORY: mounts the first instance-store SSD of an EC2 machine there, formatted if it is blank, and
# gives the directory to the caller. Without such an SSD it stays a directory of the root disk. Can be called again.
set -euo pipefail
directory=$1
sudo mkdir -p "$directory"
if ! mountpoint -q "$directory"; then
    ssd=$(find /dev/disk/by-id -name 'nvme-Amazon_EC2_NVMe_Instance_Storage_*' ! -name '*-part*' 2>/dev/null | sort | head -n 1)
    if [ -n "$ssd" ]; then
        sudo blkid "$ssd" >/dev/null || sudo mkfs.ext4 -q -E lazy_itable_init=1 "$ssd"
        sudo mount -o noatime "$ssd" "$directory"
    fi
fi
sudo chown "$(id -u):$(id -g)" "$directory"
