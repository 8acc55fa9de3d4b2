#!/bin/sh
# Writes an image to the disk that was chosen, and makes it bootable only when all of it is known to be what was ordered: the first MiB, without which neither BIOS nor
# UEFI finds anything, is held back until the checksum is right.
. "${AGENT:-/agent}/common.sh"
AGENT=${AGENT:-/agent}
. "$AGENT/api.sh"
set -o pipefail

MIB=1048576
order() { jq -r "$1" "$RUN/order"; }

give_up() {
  jq -n --arg code "$1" --arg message "$2" '{outcome: "failed", code: $code, message: $message[:1024]}' >"$RUN/result"
  exit 1
}

name=$(order .disk.name)
device=$DEV/$name
url=$(order .image.url)
work=$RUN/install
rm -rf "$work"
mkdir -p "$work"

check_disk() {
  disks | grep -x "$name" >/dev/null || give_up wrong-disk "there is no disk $name"
  [ "$(disk_serial "$name")" = "$(order .disk.serial)" ] || give_up wrong-disk "the serial number of $name is \"$(disk_serial "$name")\", not \"$(order .disk.serial)\""
  size=$(disk_bytes "$name")
  [ "$size" = "$(order .disk.sizeBytes)" ] || give_up wrong-disk "$name has $size bytes, not $(order .disk.sizeBytes)"
  [ "$(line "$SYS/block/$name/ro")" != 1 ] || give_up disk-error "$name can only be read"
}

# fetch: the image on stdout. The secret goes to the provider alone, and follows no redirection elsewhere.
fetch() {
  case $url in
    "$SERVER"/*) curl -sSf --connect-timeout 10 --speed-time 60 --speed-limit 1 $TRUST -H "@$RUN/bearer" "$url" ;;
    *) curl -sSfL --proto '=http,https' --connect-timeout 10 --speed-time 60 --speed-limit 1 "$url" ;;
  esac
}

# digested: passes stdin on, and leaves its digest and length.
digested() {
  mkfifo "$work/copy"
  (sha256sum <"$work/copy" | cut -d ' ' -f 1 >"$work/sha256") &
  tee "$work/copy"
  status=$?
  wait $!
  return $status
}

expand() {
  case $(order .image.compression) in
    gzip) gzip -dc ;;
    xz) xzcat ;;
    zstd) zstd -dcq ;;
    *) cat ;;
  esac
}

sectors_written() { awk '{ print $7 }' "$SYS/block/$name/stat" 2>/dev/null || echo 0; }

# What is told on the way: the percentage is of what the server says the file has, where it is written as it is.
total=$(
  case $url in
    "$SERVER"/*) curl -sSfI --max-time 20 $TRUST -H "@$RUN/bearer" "$url" ;;
    *) curl -sSfLI --max-time 20 "$url" ;;
  esac 2>/dev/null | tr -d '\r' | sed -n 's/^[Cc]ontent-[Ll]ength: *\([0-9]*\)$/\1/p' | tail -n 1
)
watch_progress() {
  from=$(sectors_written)
  while :; do
    sleep 1
    done_bytes=$((($(sectors_written) - from) * 512))
    percent=
    if [ -n "$total" ] && [ "$total" -gt 0 ] && [ "$(order .image.compression)" = none ]; then
      percent=$((done_bytes * 99 / total))
      [ $percent -le 99 ] || percent=99
    fi
    progress "$percent" "writing the image: $((done_bytes / MIB)) MiB so far"
  done
}

# Neither the old nor the new image can boot without these, nor be repaired from the copy of its table at the end.
clear_ends() {
  dd if=/dev/zero of="$device" bs=$MIB count=1 conv=notrunc,fsync 2>/dev/null &&
    tail_start=$((size - MIB)) && dd if=/dev/zero of="$device" bs=4096 seek=$((tail_start / 4096)) count=$((MIB / 4096)) conv=notrunc,fsync 2>/dev/null
}

# Unpacks, and where that fails takes in the rest all the same: what is wrong with an image is known only when all of it was digested.
expand_all() {
  expand
  unpacked=$?
  cat >/dev/null
  return $unpacked
}

# Takes the image from stdin: the first MiB to a file, the rest to its place. The disk is first touched when the first MiB is here, on the provider's word of that moment.
write_but_head() {
  dd of="$work/head" bs=$MIB count=1 iflag=fullblock 2>/dev/null
  # Nothing, or nothing that can be unpacked: whoever looks at the checksum says what it is.
  [ -s "$work/head" ] || return 1
  authorise
  clear_ends || { : >"$work/disk-error"; return 1; }
  dd of="$device" bs=$MIB seek=1 iflag=fullblock conv=notrunc,fsync 2>"$work/dd" && return 0
  : >"$work/disk-error"
  return 1
}

install_raw() {
  fetch 2>"$work/fetch" | digested | expand_all 2>"$work/expand" | write_but_head
  status=$?
  [ -e "$RUN/superseded" ] && exit 3
  if [ -e "$work/disk-error" ]; then
    # An image that is larger than the disk ends there, too.
    grep -i 'no space' "$work/dd" >/dev/null && give_up image-invalid "the image does not fit on $name"
    give_up disk-error "$name: $(tail -n 3 "$work/dd" | head -n 1)"
  fi
  check_fetched $status
  authorise
  dd if="$work/head" of="$device" bs=$MIB conv=notrunc,fsync 2>"$work/dd" || give_up disk-error "$name: $(head -n 1 "$work/dd")"
}

check_fetched() {
  [ -s "$work/fetch" ] && give_up image-unavailable "$(head -n 1 "$work/fetch")"
  sum=$(cat "$work/sha256" 2>/dev/null)
  [ "$sum" = "$(order .image.sha256)" ] || give_up checksum-mismatch "what was fetched has the SHA-256 $sum, not $(order .image.sha256); the disk is left without a table, and does not boot"
  [ "$1" = 0 ] || give_up image-invalid "the image can't be unpacked: $(head -n 1 "$work/expand" 2>/dev/null)"
}

# A qcow2 image can't be written as it comes: it is put at the end of the disk first, and unpacked from there once its checksum is known. So its size matters to no memory.
install_qcow2() {
  [ -n "$total" ] || give_up image-unavailable 'the server does not tell the length of the image'
  at=$(((size - total) / MIB * MIB))
  [ $at -gt $MIB ] || give_up image-invalid "the image does not fit on $name"
  fetch 2>"$work/fetch" | digested | stage
  status=$?
  [ -e "$RUN/superseded" ] && exit 3
  [ -e "$work/disk-error" ] && give_up disk-error "$name: $(tail -n 3 "$work/dd" | head -n 1)"
  check_fetched $status
  # A part of a disk is of whole sectors.
  part="driver=raw,offset=$at,size=$(((total + 511) / 512 * 512)),file.driver=host_device,file.locking=off,file.filename=$device"
  source="driver=qcow2,$(echo "$part" | sed 's/\(^\|,\)/\1file./g')"
  info=$(qemu-img info -U --output json --image-opts "$source" 2>"$work/info") || give_up image-invalid "$(head -n 1 "$work/info")"
  # A backing or data file would be read from wherever the image says.
  echo "$info" | jq -e '."backing-filename" == null and (."format-specific".data."data-file" // null) == null' >/dev/null ||
    give_up image-invalid 'the image needs another file'
  virtual=$(echo "$info" | jq '."virtual-size"')
  [ "$virtual" -le $at ] || give_up image-invalid "unpacked, the image has $virtual bytes, and $name has room for $at beside the packed one"
  authorise
  qemu-img convert -n -t none -T none --image-opts "$source" --target-image-opts \
    "driver=raw,offset=0,size=$at,file.driver=host_device,file.locking=off,file.filename=$device" 2>"$work/convert" ||
    give_up disk-error "$(head -n 1 "$work/convert")"
  # What was put aside would only be in the way of what grows.
  tool blkdiscard -f -z -o $at -l $(((size - at) / 4096 * 4096)) "$device" 2>/dev/null ||
    head -c "$total" /dev/zero | dd of="$device" bs=$MIB seek=$((at / MIB)) iflag=fullblock conv=notrunc 2>/dev/null
  sync
}

stage() {
  dd of="$work/first" bs=$MIB count=1 iflag=fullblock 2>/dev/null
  [ -s "$work/first" ] || return 1
  authorise
  clear_ends || { : >"$work/disk-error"; return 1; }
  cat "$work/first" - | dd of="$device" bs=$MIB seek=$((at / MIB)) iflag=fullblock conv=notrunc,fsync 2>"$work/dd" && return 0
  : >"$work/disk-error"
  return 1
}

# A small partition at the end of the disk, with the files for cloud-init. What the image has before it can still grow up to it.
write_seed() {
  label=$(order .seed.label)
  seed_bytes=$((4 * MIB))
  truncate -s $seed_bytes "$work/seed"
  tool mkfs.vfat -n "$label" -i 51195eed "$work/seed" >/dev/null 2>"$work/error" || give_up internal "$(head -n 1 "$work/error")"
  count=$(order '.seed.files | length')
  index=0
  while [ $index -lt "$count" ]; do
    path=$(order ".seed.files[$index].path")
    folder=
    rest=$path
    while [ "$rest" != "${rest#*/}" ]; do
      folder=${folder:+$folder/}${rest%%/*}
      rest=${rest#*/}
      mmd -D s -i "$work/seed" "::$folder" </dev/null >/dev/null 2>&1
    done
    order ".seed.files[$index].base64" | base64 -d >"$work/file"
    mcopy -o -i "$work/seed" "$work/file" "::$path" </dev/null 2>"$work/error" || give_up internal "the seed: $(head -n 1 "$work/error")"
    index=$((index + 1))
  done
  rm -f "$work/file"

  table=$(sfdisk --json "$device" 2>/dev/null | jq -r .partitiontable.label)
  case $table in gpt | dos) ;; *) give_up image-invalid 'the image has no partition table, so that there is no place for its seed' ;; esac
  [ "$table" = gpt ] && sfdisk --no-reread --no-tell-kernel --relocate gpt-bak-std "$device" >/dev/null 2>&1
  # Two MiB are left at the very end for the copy of the table.
  start=$(((size - seed_bytes - 2 * MIB) / MIB * MIB))
  last=$(sfdisk --json "$device" | jq '.partitiontable | (.sectorsize // 512) as $s | [.partitions[]? | (.start + .size) * $s] | max // 0')
  [ "$last" -le $start ] || give_up image-invalid "the image leaves no room for its seed at the end of $name"
  sector=$(line "$SYS/block/$name/queue/logical_block_size")
  if [ "$table" = gpt ]; then kind="type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=$label"; else kind='type=c'; fi
  echo "start=$((start / sector)), size=$((seed_bytes / sector)), $kind" |
    sfdisk --no-reread --no-tell-kernel --force --append "$device" >/dev/null 2>"$work/error" || give_up image-invalid "the seed's partition: $(head -n 1 "$work/error")"
  dd if="$work/seed" of="$device" bs=$MIB seek=$((start / MIB)) conv=notrunc,fsync 2>"$work/dd" || give_up disk-error "$name: $(head -n 1 "$work/dd")"
  rm -f "$work/seed"
}

# The disk's own loader, before all others, under a name by which the wiping finds it again.
add_boot_entry() {
  [ -d "$SYS/firmware/efi/efivars" ] || return 0
  esp=$(sfdisk --json "$device" 2>/dev/null | jq -r '[.partitiontable.partitions[]? | select((.type | ascii_upcase) == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B") | .node] | first // empty')
  [ -n "$esp" ] || { say 'the image has no EFI system partition'; return 0; }
  number=$(echo "$esp" | sed 's/.*[^0-9]\([0-9]*\)$/\1/')
  case $(uname -m) in aarch64) loader=BOOTAA64.EFI ;; *) loader=BOOTX64.EFI ;; esac
  efibootmgr 2>/dev/null | sed -n 's/^Boot\([0-9A-F]\{4\}\)\*\{0,1\} slipway\([[:space:]].*\)\{0,1\}$/\1/p' | while read -r entry; do efibootmgr -q -b "$entry" -B; done
  efibootmgr -q -c -d "$device" -p "$number" -L slipway -l "\\EFI\\BOOT\\$loader" || say 'the firmware takes no boot entry'
}

check_disk
before=$(sectors_written)
watch_progress &
watcher=$!
trap 'kill $watcher 2>/dev/null' EXIT
case $(order .image.format) in
  raw) install_raw ;;
  qcow2) install_qcow2 ;;
esac
[ "$(order '.seed != null')" = true ] && write_seed
sync
blockdev --rereadpt "$device" 2>/dev/null
[ "$(order .efiEntry)" = true ] && add_boot_entry
jq -n --arg sum "$(cat "$work/sha256")" --argjson written "$((($(sectors_written) - before) * 512))" '{outcome: "done", sha256: $sum, writtenBytes: $written}' >"$RUN/result"
