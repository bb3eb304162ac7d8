# ACTIONS_RUNNER_HOOK_JOB_STARTED: tells MIGlet that the job's set-up has passed.
# The Worker runs it as `bash -e`, in the job; nothing here may fail or take long.
trap 'exit 0' EXIT
exec </dev/null >/dev/null 2>&1
. "${BASH_SOURCE[0]%/*}/report.sh"
report job-started
