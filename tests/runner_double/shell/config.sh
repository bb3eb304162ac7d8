#!/bin/bash
# Play the real script: checks first, then the Listener with all arguments quoted.

if [ "$(id -u)" -eq 0 ] && [ -z "$RUNNER_ALLOW_RUNASROOT" ]; then
    echo "Must not run with sudo"
    exit 1
fi

if ! command -v ldd >/dev/null; then
    echo "Can not find 'ldd'. Please install 'ldd' and try again."
    exit 1
fi

libraries=(libcoreclr.so libSystem.Security.Cryptography.Native.OpenSsl.so
    libSystem.IO.Compression.Native.so)
missing=$(for name in "${libraries[@]}"; do ldd "./bin/$name"; done | grep "not found")
if [ -n "$missing" ]; then
    echo "$missing"
    echo "Dependencies is missing for Dotnet Core 6.0"
    echo "Execute sudo ./bin/installdependencies.sh to install any missing Dotnet Core 6.0 dependencies."
    exit 1
fi

if ! command -v ldconfig >/dev/null && [ ! -x /sbin/ldconfig ]; then
    echo "Can not find 'ldconfig' in PATH and '/sbin/ldconfig' doesn't exists either. Please install 'ldconfig' and try again."
    exit 1
fi

script=$(readlink -f "${BASH_SOURCE[0]}")
cd "$(dirname "$script")" || exit 1

# The libraries of this machine are not asked: whether one is missing is in the plan.
source double/preflight.sh
source ./env.sh

if [ "${1,,}" = "remove" ]; then
    ./bin/Runner.Listener "$@"
else
    ./bin/Runner.Listener configure "$@"
fi
