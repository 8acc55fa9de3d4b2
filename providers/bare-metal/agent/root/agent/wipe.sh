#!/bin/sh
# Wipes every disk, all at the same time, each by the first way that it offers and whose result can be read back.
. "${AGENT:-/agent}/common.sh"
AGENT=${AGENT:-/agent}
. "$AGENT/api.sh"
. "$AGENT/erase.sh"

method=$(jq -r .method "$RUN/order")
rm -rf "$RUN/wipe"
mkdir -p "$RUN/wipe"

# What stands in the firmware's list for an installation of ours goes with it.
forget_boot_entries() {
  [ -d "$SYS/firmware/efi/efivars" ] || return 0
  authorise
  efibootmgr 2>/dev/null | sed -n 's/^Boot\([0-9A-F]\{4\}\)\*\{0,1\} slipway\([[:space:]].*\)\{0,1\}$/\1/p' | while read -r entry; do efibootmgr -q -b "$entry" -B; done
}

names=$(disks)
say "wiping: $(echo $names)"
for name in $names; do
  (wipe_disk "$name" "$method") &
done

watch_progress() {
  while :; do
    sum=0
    count=0
    for file in "$RUN"/wipe/*.percent; do
      [ -e "$file" ] || continue
      value=$(cat "$file")
      sum=$((sum + ${value:-0}))
      count=$((count + 1))
    done
    [ $count -gt 0 ] && progress $((sum / count)) "$(cat "$RUN"/wipe/*.now 2>/dev/null | tr '\n' ';' | sed 's/;$//; s/;/; /g' | cut -c 1-250)"
    sleep 1
  done
}
watch_progress &
watcher=$!
for name in $names; do
  until [ -e "$RUN/wipe/$name.json" ] || [ -e "$RUN/superseded" ]; do usleep 100000; done
done
kill $watcher
[ -e "$RUN/superseded" ] && exit 3
forget_boot_entries
cat "$RUN"/wipe/*.json 2>/dev/null | jq -s 'if all(.wiped) then {outcome: "done", disks: .}
  else {outcome: "failed", code: "wipe-failed", message: ("not wiped: " + ([.[] | select(.wiped | not) | .name] | join(", "))), disks: .} end' >"$RUN/result.new"
mv "$RUN/result.new" "$RUN/result"
