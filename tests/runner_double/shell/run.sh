#!/bin/bash
# Play the real script: loop on code 2, forget every other code but 7, and trap nothing
# unless asked to.

SOURCE=$(readlink -f "${BASH_SOURCE[0]}")
DIR=$(dirname "$SOURCE")

run() {
    while :; do
        cp -f "$DIR"/run-helper.sh.template "$DIR"/run-helper.sh
        "$DIR"/run-helper.sh $*
        code=$?
        if [ $code -eq 2 ]; then
            echo "Restarting runner..."
        elif [ $code -eq 7 ] && [ "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" = "1" ]; then
            echo "Exiting runner..."
            exit 7
        else
            echo "Exiting runner..."
            exit 0
        fi
    done
}

runWithManualTrap() {
    set -m
    trap 'kill -INT -$PID' INT TERM
    while :; do
        cp -f "$DIR"/run-helper.sh.template "$DIR"/run-helper.sh
        "$DIR"/run-helper.sh $* &
        PID=$!
        wait $PID
        code=$?
        if [ $code -eq 2 ]; then
            echo "Restarting runner..."
        else
            echo "Exiting runner..."
            trap - INT TERM
            wait $PID
            exit $code
        fi
    done
}

updateCerts() {
    local update=
    for tool in update-ca-certificates update-ca-trust; do
        command -v $tool >/dev/null && update=${update:-$tool}
    done
    if [ -z "$update" ]; then
        echo "Warning: failed to update certificate store: update-ca-certificates or update-ca-trust not found."
    elif [ "$(id -u)" -eq 0 ]; then
        $update
    elif command -v sudo >/dev/null; then
        sudo $update
    else
        echo "Warning: failed to update certificate store: sudo is required but not found"
    fi
}

if [ -n "$RUNNER_UPDATE_CA_CERTS" ]; then
    updateCerts
fi

if [ -z "$RUNNER_MANUALLY_TRAP_SIG" ]; then
    run $*
else
    runWithManualTrap $*
fi
