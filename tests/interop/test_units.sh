#!/bin/bash
# test_units.sh BUILD WORK: the units, as they are installed, are understood by systemd, name programs that are there,
# and leave the daemons little to do harm with.
set -euo pipefail
build=$1 work=$2
if ! command -v systemd-analyze >/dev/null; then
    echo "skipped: no systemd-analyze (apt-get install systemd)"
    exit 77
fi
rm -rf "$work"
cmake --install "$build" --prefix "$work" >/dev/null
for unit in sluice-trainer sluice-scorer; do
    file=$work/lib/systemd/system/$unit.service
    said=$(systemd-analyze verify "$file" 2>&1) || {
        echo "$said"
        echo "FAILED: systemd does not like $unit"
        exit 1
    }
    # Unknown keys are only warned about.
    if grep -F "$unit.service" <<<"$said"; then
        echo "FAILED: systemd warns about $unit"
        exit 1
    fi
    for line in LimitCORE=0 NoNewPrivileges=yes DynamicUser=yes CapabilityBoundingSet= ProtectSystem=strict; do
        grep -qx "$line" "$file" || { echo "FAILED: $unit lacks $line" && exit 1; }
    done
    # Exposure out of 10 (here in tenths), 0 is least.
    SYSTEMD_LOG_LEVEL=err systemd-analyze security --offline=true --threshold=15 --no-pager "$file" | tail -1 || {
        echo "FAILED: $unit is more exposed than it was"
        exit 1
    }
done
grep -q '^ExecReload=.*-HUP' "$work/lib/systemd/system/sluice-scorer.service" || { echo "FAILED: no reload" && exit 1; }
rm -rf "$work"
