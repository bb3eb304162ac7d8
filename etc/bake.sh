#!/bin/bash
# bake.sh: make a golden image of the machine that this runs on (docs/image.rst).
#
# As root on Debian 12 or Ubuntu, in a folder with miglet_*_all.deb and one release of
# actions/runner, actions-runner-linux-*.tar.gz:
#
#   sudo RUNNER_SHA256=SUM bash bake.sh
#
#   RUNNER_SHA256  digest of the release, as GitHub's release notes have it
#   JOBS_SUDO=1    jobs may use sudo, and with it read everything on the machine
#   JOBS_DOCKER=1  jobs may use Docker, which is installed already; the same holds
#   OPERATOR=USER  a user of the machine who may ask it, as with `miglet-ctl status`
#
# It ends with an error if a machine made of the image could not take jobs.
set -eu
: "${RUNNER_SHA256:?is missing: the digest of the release, see the release notes}"
export DEBIAN_FRONTEND=noninteractive

apt-get update
apt-get install -y ./miglet_*_all.deb nftables

# 78: libraries are missing. If it was something else, there is no script to run, or the
# check below fails as well.
status=0
miglet install-runner ./actions-runner-linux-*.tar.gz --sha256 "$RUNNER_SHA256" ||
    status=$?
if [[ $status == 78 ]]; then
    /opt/actions-runner/bin/installdependencies.sh
elif [[ $status != 0 ]]; then
    exit "$status"
fi

if [[ ${JOBS_SUDO-} == 1 ]]; then
    echo 'runner ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/runner
    chmod 0440 /etc/sudoers.d/runner
fi
if [[ ${JOBS_DOCKER-} == 1 ]]; then
    usermod -aG docker runner
fi
if [[ -n ${OPERATOR-} ]]; then
    usermod -aG miglet "$OPERATOR"
fi

systemctl disable apt-daily.timer apt-daily-upgrade.timer
if systemctl cat unattended-upgrades.service >/dev/null 2>&1; then
    systemctl disable unattended-upgrades.service
fi

miglet --set pool_id=check --set vm_id=check --set org_id=check \
    --set controller.endpoint=https://controller.example \
    --set bootstrap.network=false check

rm -rf /var/lib/miglet/* /etc/miglet/token /opt/actions-runner/_diag
if command -v cloud-init >/dev/null; then
    cloud-init clean --logs --machine-id
fi
