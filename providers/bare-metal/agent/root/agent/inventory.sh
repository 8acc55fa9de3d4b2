#!/bin/sh
# Prints what the machine is made of, as the provider's contract asks for it.
. "${AGENT:-/agent}/common.sh"

number() { case $1 in '' | *[!0-9]*) echo "$2" ;; *) echo "$1" ;; esac; }

cpu() {
  model=$(sed -n 's/^model name[[:space:]]*: //p' "$PROC/cpuinfo" | head -n 1)
  count=$(grep -c '^processor' "$PROC/cpuinfo")
  sockets=$(sed -n 's/^physical id[[:space:]]*: //p' "$PROC/cpuinfo" | sort -u | grep -c .)
  case $(uname -m) in aarch64) architecture=arm64 ;; *) architecture=amd64 ;; esac
  jq -n --arg model "$model" --argjson count "$(number "$count" 1)" --argjson sockets "$([ "$sockets" -gt 0 ] && echo "$sockets" || echo 1)" \
    --arg architecture "$architecture" '{model: $model[:256], count: $count, sockets: $sockets, architecture: $architecture}'
}

all_disks() {
  for name in $(disks); do
    path=$SYS/block/$name
    jq -n --arg name "$name" --argjson size "$(disk_bytes "$name")" --arg serial "$(disk_serial "$name")" --arg wwn "$(disk_wwn "$name")" \
      --arg model "$(line "$path/device/model")" --arg firmware "$(line "$path/device/firmware_rev" || line "$path/device/rev")" \
      --arg rotational "$(line "$path/queue/rotational")" --arg transport "$(disk_transport "$name")" \
      --argjson block "$(number "$(line "$path/queue/logical_block_size")" 512)" \
      '{name: $name, sizeBytes: $size, serial: $serial, wwn: $wwn[:128], model: $model[:128], firmware: $firmware[:64],
        rotational: ($rotational == "1"), transport: $transport, logicalBlockBytes: $block}'
  done | jq -s .
}

all_nics() {
  for path in "$SYS"/class/net/*; do
    [ -e "$path/device" ] || continue
    name=${path##*/}
    driver=$(readlink "$path/device/driver")
    # -1, or an error, where there is no link.
    speed=$(line "$path/speed" 2>/dev/null)
    addresses=$(ip -o addr show dev "$name" 2>/dev/null | awk '$3 ~ /^inet6?$/ { sub(/\/.*/, "", $4); print $4 }')
    jq -n --arg name "$name" --arg mac "$(line "$path/address")" --arg carrier "$(line "$path/carrier")" --argjson speed "$(number "$speed" 0)" \
      --arg driver "${driver##*/}" --arg addresses "$addresses" \
      '{name: $name, mac: $mac, link: ($carrier == "1"), driver: $driver, addresses: ($addresses | split("\n") | map(select(. != "")))[:32]}
        + (if $speed > 0 then {speedMbps: $speed} else {} end)'
  done | jq -s .
}

dmi() {
  id=$SYS/class/dmi/id
  jq -n --arg vendor "$(line $id/sys_vendor)" --arg product "$(line $id/product_name)" --arg serial "$(line $id/product_serial)" --arg uuid "$(line $id/product_uuid)" \
    --arg assetTag "$(line $id/chassis_asset_tag)" --arg boardSerial "$(line $id/board_serial)" \
    '$ARGS.named | map_values(.[:256]) | .uuid |= (ascii_downcase | .[:64])'
}

firmware() {
  id=$SYS/class/dmi/id
  mode=bios
  secure=0
  if [ -d "$SYS/firmware/efi" ]; then
    mode=uefi
    # Four bytes of attributes, then the value.
    secure=$(tail -c 1 "$SYS"/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null | hexdump -v -e '1/1 "%d"')
  fi
  jq -n --arg mode $mode --arg secure "$secure" --arg vendor "$(line $id/bios_vendor)" --arg version "$(line $id/bios_version)" --arg date "$(line $id/bios_date)" \
    '{mode: $mode, secureBoot: ($secure == "1"), vendor: $vendor[:256], version: $version[:256], date: $date[:64]}'
}

# What the management controller says of itself on the machine's own bus; nothing where there is none.
bmc() {
  [ -e "$DEV/ipmi0" ] || { echo null; return; }
  for channel in 1 2 8; do
    lan=$(timeout 20 ipmitool lan print $channel 2>/dev/null)
    address=$(echo "$lan" | sed -n 's/^IP Address  *: *//p' | head -n 1)
    case $address in '' | 0.0.0.0) continue ;; esac
    version=$(timeout 20 ipmitool mc info 2>/dev/null | sed -n 's/^Firmware Revision  *: *//p' | head -n 1)
    jq -n --arg address "$address" --arg mac "$(echo "$lan" | sed -n 's/^MAC Address  *: *//p' | head -n 1)" --arg firmware "$version" \
      '{address: $address[:64], mac: ($mac | ascii_downcase | .[:32]), firmware: $firmware[:64]}'
    return
  done
  echo null
}

# What is built in, and not what the kernel leaves of it: the blocks that are online. Where the kernel does not count in blocks, what it has.
memory() {
  block=$(line "$SYS/devices/system/memory/block_size_bytes")
  blocks=$(cat "$SYS"/devices/system/memory/memory*/online 2>/dev/null | grep -c 1)
  if [ -n "$block" ] && [ "$blocks" -gt 0 ]; then
    echo $((0x$block * blocks))
  else
    echo $(($(number "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "$PROC/meminfo")" 0) * 1024))
  fi
}

jq -n --argjson cpu "$(cpu)" --argjson memory "$(memory)" --argjson disks "$(all_disks)" --argjson nics "$(all_nics)" \
  --argjson dmi "$(dmi)" --argjson firmware "$(firmware)" --argjson bmc "$(bmc)" --arg bootMac "$(argument slipway.mac)" --arg kernel "$(uname -r)" \
  '{cpu: $cpu, memoryBytes: $memory, disks: $disks, nics: $nics, dmi: $dmi, firmware: $firmware, kernel: $kernel[:128]}
    + (if $bmc == null then {} else {bmc: $bmc} end) + (if $bootMac == "" then {} else {bootMac: $bootMac} end)'
