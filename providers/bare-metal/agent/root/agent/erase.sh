# Erasing one disk. Sourced after api.sh.

SAMPLE_BYTES=65536
SAMPLES=${SAMPLES:-48}

# Where to look: the first and the last places, where tables and labels are, and others by chance. In samples from the start, one a line.
sample_places() {
  places=$(($(disk_bytes "$1") / SAMPLE_BYTES))
  [ $places -gt 0 ] || places=1
  {
    echo 0
    echo $((places > 1 ? 1 : 0))
    echo $((places - 1))
    hexdump -v -n $((SAMPLES * 4)) -e '1/4 "%u\n"' /dev/urandom | while read -r number; do echo $((number % places)); done
  } | sort -un
}

# read_samples NAME FOLDER: a line for each place that is given: place, digest. All are read first and digested at once: a process for each would take longer than the reading.
read_samples() {
  rm -rf "$2"
  mkdir -p "$2"
  blockdev --flushbufs "$DEV/$1" 2>/dev/null
  while read -r place; do dd if="$DEV/$1" of="$2/$place" bs=$SAMPLE_BYTES skip="$place" count=1 2>/dev/null; done
  (cd "$2" && sha256sum -- * | sed 's/^\([0-9a-f]*\)  *\(.*\)$/\2 \1/' | sort -n)
  rm -rf "$2"
}

# compare_samples NAME: sets zero, changed, unchanged for the samples of before against those of now. The last place may be shorter than the others on disks of an odd size:
# zero is told by what is there.
compare_samples() {
  zeroes=$(head -c $SAMPLE_BYTES /dev/zero | sha256sum | cut -d ' ' -f 1)
  cut -d ' ' -f 1 "$RUN/wipe/$1.before" | read_samples "$1" "$RUN/wipe/$1.samples" >"$RUN/wipe/$1.after"
  zero=0 changed=0 unchanged=0
  while read -r place before && read -r same now <&3; do
    if [ "$now" = "$zeroes" ]; then zero=$((zero + 1))
    elif [ "$place" = "$same" ] && [ "$now" != "$before" ] && [ "$now" != "$EMPTY" ]; then changed=$((changed + 1))
    else unchanged=$((unchanged + 1)); fi
  done <"$RUN/wipe/$1.before" 3<"$RUN/wipe/$1.after"
}
# The digest of nothing: what could not be read at all.
EMPTY=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

# The ways that a disk offers, best first, one a line. Overwriting is always the last one.
wipe_steps() {
  name=$1
  if [ "$2" = best ]; then
    case $(disk_transport "$name") in
      nvme) nvme_steps "$name" ;;
      sata) ata_steps "$name" ;;
    esac
    [ "$(line "$SYS/block/$name/queue/discard_max_bytes")" -gt 0 ] 2>/dev/null && echo discard
  fi
  echo overwrite
}

# NVM Express Base Specification: SANICAP of Identify Controller (bit 0 crypto, bit 1 block erase), OACS bit 1 (Format NVM), FNA bit 2 (crypto erase by format).
nvme_steps() {
  identity=$(tool nvme id-ctrl -o json "$DEV/$1" 2>/dev/null) || return 0
  echo "$identity" | jq -r 'def bit($n; $b): (($n // 0) / pow(2; $b) | floor) % 2 == 1;
    (if bit(.sanicap; 0) then "nvme-sanitize-crypto" else empty end),
    (if bit(.sanicap; 1) then "nvme-sanitize-block" else empty end),
    (if bit(.oacs; 1) then (if bit(.fna; 2) then "nvme-format-crypto" else empty end), "nvme-format-user-data" else empty end)'
}

# ATA: the Security feature set must be there, and neither locked nor frozen, as hdparm -I prints it.
ata_steps() {
  security=$(tool hdparm -I "$DEV/$1" 2>/dev/null | sed -n '/^Security:/,/^[A-Z]/p')
  echo "$security" | grep -q '^[[:space:]]*supported$' || return 0
  echo "$security" | grep -q 'not[[:space:]]*frozen' || return 0
  echo "$security" | grep -q 'not[[:space:]]*locked' || return 0
  echo "$security" | grep -q 'supported: enhanced erase' && echo ata-secure-erase-enhanced
  echo ata-secure-erase
}

run_step() {
  device=$DEV/$1
  case $2 in
    nvme-sanitize-crypto) tool nvme sanitize -a 4 "$device" && wait_for_sanitize "$device" ;;
    nvme-sanitize-block) tool nvme sanitize -a 2 "$device" && wait_for_sanitize "$device" ;;
    nvme-format-crypto) tool nvme format --force -s 2 -t 7200000 "$device" ;;
    nvme-format-user-data) tool nvme format --force -s 1 -t 7200000 "$device" ;;
    ata-secure-erase-enhanced) ata_erase "$device" --security-erase-enhanced ;;
    ata-secure-erase) ata_erase "$device" --security-erase ;;
    discard) tool blkdiscard -f "$device" ;;
    overwrite) overwrite "$1" ;;
  esac
}

# Sanitize Status Log: SSTAT bits 2:0, 2 is under way, 1 and 4 are done, 3 has failed.
wait_for_sanitize() {
  while :; do
    state=$(tool nvme sanitize-log -o json "$1" 2>/dev/null | jq -r '[.. | .sstat? // empty | if type == "object" then .status? // empty else . end | if type == "string" then ltrimstr("(") | .[:1] | tonumber? else . % 8 end] | first // empty')
    case $state in
      1 | 4) return 0 ;;
      2) sleep 2 ;;
      *) echo "sanitize ended in state ${state:-unknown}" && return 1 ;;
    esac
  done
}

# The password is of no worth: it is gone with the erasure, and is taken back where that did not happen, so that the disk is not left locked.
ata_erase() {
  tool hdparm --user-master u --security-set-pass slipway "$1" || return 1
  tool hdparm --user-master u "$2" slipway "$1" && return 0
  tool hdparm --user-master u --security-disable slipway "$1"
  return 1
}

overwrite() {
  size=$(disk_bytes "$1")
  from=$(sectors_written "$1")
  (
    while :; do
      sleep 1
      echo $(((($(sectors_written "$1") - from) * 512 * 99) / size)) >"$RUN/wipe/$1.percent"
    done
  ) &
  meter=$!
  # Every block is really sent: a disk that is asked to write zeroes by itself may as well only forget where its data was.
  head -c "$size" /dev/zero | tool dd of="$DEV/$1" bs=4M iflag=fullblock conv=fsync,notrunc
  status=$?
  kill $meter
  return $status
}

# Field 7 of a block device's stat: sectors of 512 bytes written.
sectors_written() { awk '{ print $7 }' "$SYS/block/$1/stat" 2>/dev/null || echo 0; }

# wipe_disk NAME METHOD: leaves its record in $RUN/wipe/NAME.json. The last step whose read-back holds is what counts.
wipe_disk() {
  begun=$(uptime_ms)
  base=$RUN/wipe/$1
  : >"$base.steps"
  wiped=false
  zero=0 changed=0 unchanged=0
  sample_places "$1" | read_samples "$1" "$base.samples" >"$base.before"
  for step in $(wipe_steps "$1" "$2"); do
    echo "$1: $step" >"$base.now"
    # A part that was partly written may be left behind a step that failed: a read-only disk, or one that is gone, says so itself.
    authorise
    said=$(run_step "$1" "$step" 2>&1 </dev/null)
    status=$?
    ok=false
    if [ $status = 0 ]; then
      compare_samples "$1"
      if [ $unchanged = 0 ] && [ $((zero + changed)) -gt 0 ]; then ok=true; else said="of $((zero + changed + unchanged)) places $unchanged read as before"; fi
    fi
    [ $ok = true ] && said=
    jq -n --arg step "$step" --argjson ok $ok --arg message "$said" '{step: $step, ok: $ok, message: $message[:512]}' >>"$base.steps"
    say "$1: $step: $([ $ok = true ] && echo "done, $zero places zero and $changed changed" || echo "failed: $said")"
    [ $ok = true ] && { wiped=true; break; }
  done
  echo 100 >"$base.percent"
  rm -f "$base.now"
  jq -n --arg name "$1" --arg serial "$(disk_serial "$1")" --arg wwn "$(disk_wwn "$1")" --argjson size "$(disk_bytes "$1")" --slurpfile steps "$base.steps" \
    --argjson sample $SAMPLE_BYTES --argjson zero $zero --argjson changed $changed --argjson unchanged $unchanged --argjson wiped $wiped \
    --argjson duration $(($(uptime_ms) - begun)) \
    '{name: $name, serial: $serial, wwn: $wwn, sizeBytes: $size, steps: $steps, wiped: $wiped, durationMs: $duration,
      readBack: {sampleBytes: $sample, zero: $zero, changed: $changed, unchanged: $unchanged}}' >"$base.json.new"
  mv "$base.json.new" "$base.json"
}
