#!/bin/sh
# embed.sh FILE NAME: prints C source that defines NAME[] and NAME_size with the bytes of FILE.
set -eu
printf '#include <stddef.h>\nconst unsigned char %s[] = {\n' "$2"
od -An -v -tx1 "$1" | sed 's/ \([0-9a-f][0-9a-f]\)/0x\1,/g'
printf '};\nconst size_t %s_size = sizeof %s;\n' "$2" "$2"
