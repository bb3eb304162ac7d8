#!/bin/bash
# Keep tool variables for later starts in .env, and the search path in .path.

names=(LANG JAVA_HOME ANT_HOME M2_HOME ANDROID_HOME ANDROID_SDK_ROOT GRADLE_HOME
    NVM_BIN NVM_PATH LD_LIBRARY_PATH PERL5LIB)

[ -e .env ] || : >.env
known=$(<.env)

for name in "${names[@]}"; do
    if [ -n "${!name}" ] && [[ $known != *"$name="* ]]; then
        echo "$name=${!name}" >>.env
    fi
done

echo "$PATH" >.path
