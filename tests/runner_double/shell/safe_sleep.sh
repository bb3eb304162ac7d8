#!/bin/bash
# Sleep by whatever this machine has.

if command -v sleep >/dev/null; then
    sleep "$1"
elif command -v ping >/dev/null; then
    ping -c $((${1%.*} + 1)) 127.0.0.1 >/dev/null
elif [ -t 0 ]; then
    read -r -t "$1"
else
    end=$((SECONDS + ${1%.*}))
    while [ $SECONDS -lt $end ]; do :; done
fi
