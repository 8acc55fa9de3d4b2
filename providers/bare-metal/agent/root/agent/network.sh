#!/bin/sh
# Brings up every interface, so that its link can be seen, and gets an address on the one that the machine was booted from.
. /agent/common.sh

interfaces() { for path in "$SYS"/class/net/*; do [ -e "$path/device" ] && echo "${path##*/}"; done; }

ip link set lo up
boot=$(argument slipway.mac)
tries=0
while [ -z "$(interfaces)" ] && [ $tries -lt 100 ]; do usleep 100000 && tries=$((tries + 1)); done
for name in $(interfaces); do ip link set "$name" up; done

first=
others=
for name in $(interfaces); do
  if [ "$(line "$SYS/class/net/$name/address")" = "$boot" ]; then first=$name; else others="$others $name"; fi
done

for round in 1 2 3 4 5 6; do
  for name in $first $others; do
    # Without a link no address. The one that was booted from may take a while to have it again.
    tries=0
    while [ "$(line "$SYS/class/net/$name/carrier")" != 1 ] && [ "$name" = "$first" ] && [ $tries -lt 100 ]; do
      usleep 100000
      tries=$((tries + 1))
    done
    [ "$(line "$SYS/class/net/$name/carrier")" = 1 ] || continue
    # In the background afterwards, so that the address is kept for as long as a wipe takes.
    if udhcpc -q -n -t 10 -T 1 -A 1 -f -i "$name" -s /agent/lease.sh >/dev/null 2>&1; then
      udhcpc -f -t 10 -T 3 -A 10 -i "$name" -s /agent/lease.sh >/dev/null 2>&1 &
      say "network is up on $name after $(uptime_ms) ms"
      exit 0
    fi
  done
done
say "no interface was given an address: $(interfaces | tr '\n' ' ')"
exit 1
