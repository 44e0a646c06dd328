#!/bin/sh
# make_venv.sh PYTHON VENV REQUIREMENTS: a venv with exactly the pinned packages; quick when it is there already.
set -eu
stamp=$2/stamp-$(cksum < "$3" | tr ' ' '-')
[ -e "$stamp" ] && exit 0
rm -rf "$2"
if ! "$1" -m venv "$2"; then
    echo "python3 -m venv failed: apt-get install python3-venv (make does that)" >&2
    exit 1
fi
"$2/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r "$3"
touch "$stamp"
