# Sourced by the job hooks: writes what is known of the job to $MIGLET_JOB_DIRECTORY.
#
# Only bash builtins, no network, no output, and whatever goes wrong: exit 0, because
# a hook that fails makes the job fail. The report ends in "}" and a newline; a report
# without them is not complete yet. Each \u00XX stands for one byte of the value, so
# that any bytes can be told (the reader puts UTF-8 together again).

trap 'exit 0' EXIT HUP INT TERM
trap '' PIPE XFSZ
set +eu
LC_ALL=C
umask 077

# quote VALUE: leaves it in $quoted as a JSON string, at most 300 bytes of it.
quote() {
    local value=${1:0:300} plain character code index
    # The printable beginning at once, the rest byte by byte.
    plain=${value%%[!\ -\~]*}
    value=${value:${#plain}}
    plain=${plain//\\/\\\\}
    quoted=\"${plain//\"/\\\"}
    for ((index = 0; index < ${#value}; index++)); do
        character=${value:index:1}
        case $character in
            [\"\\]) quoted+=\\$character ;;
            [\ -\~]) quoted+=$character ;;
            *)
                printf -v code %d "'$character"
                printf -v code '\\u%04x' $((code & 255))
                quoted+=$code
                ;;
        esac
    done
    quoted+=\"
}

# report NAME: writes NAME.json. A link, a fifo or a folder there is left alone, for
# opening a fifo would wait for its reader.
report() {
    local file=$MIGLET_JOB_DIRECTORY/$1.json name text quoted at
    [[ -n $MIGLET_JOB_DIRECTORY && ! -L $file ]] || return
    [[ ! -e $file || -f $file ]] || return
    at=$EPOCHREALTIME
    [[ -n $at ]] || printf -v at '%(%s)T' -1
    quote "$at"
    text="{\"at\":$quoted"
    for name in GITHUB_RUN_ID GITHUB_RUN_ATTEMPT GITHUB_REPOSITORY GITHUB_WORKFLOW \
        GITHUB_REF GITHUB_SHA GITHUB_ACTOR GITHUB_EVENT_NAME GITHUB_JOB RUNNER_NAME; do
        [[ -n ${!name} ]] || continue
        quote "${!name}"
        text+=",\"$name\":$quoted"
    done
    printf '%s}\n' "$text" >|"$file"
}
