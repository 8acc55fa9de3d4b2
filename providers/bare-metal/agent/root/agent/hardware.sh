#!/bin/sh
# Loads what the machine's devices ask for, until nothing new appears.
. /agent/common.sh

load() {
  find "$SYS/devices" -name modalias -exec cat {} + 2>/dev/null | sort -u >"$RUN/aliases.new"
  [ -f "$RUN/aliases" ] || echo none >"$RUN/aliases"
  fresh=$(grep -vxFf "$RUN/aliases" "$RUN/aliases.new")
  mv "$RUN/aliases.new" "$RUN/aliases"
  [ -n "$fresh" ] || return 1
  echo "$fresh" | xargs -n 40 modprobe -qab 2>/dev/null
  return 0
}

while load; do usleep 50000; done
modprobe -qa sd_mod efivarfs ipmi_si ipmi_devintf 2>/dev/null
[ -d "$SYS/firmware/efi" ] && mount -t efivarfs efivarfs "$SYS/firmware/efi/efivars" 2>/dev/null

# Controllers find their disks in their own time. Without one there is nothing to wait for.
if [ -n "$(ls "$SYS/class/scsi_host" 2>/dev/null)" ]; then
  calm=0
  before=
  tries=0
  while [ $calm -lt 10 ] && [ $tries -lt 300 ]; do
    usleep 200000
    load
    now=$(disks)
    if [ "$now" = "$before" ]; then calm=$((calm + 1)); else calm=0; fi
    before=$now
    tries=$((tries + 1))
  done
fi
say "hardware is up after $(uptime_ms) ms"
