#!/bin/sh
# The conversation with the provider: who I am, what I am made of, and then one order after another.
. "${AGENT:-/agent}/common.sh"
AGENT=${AGENT:-/agent}
. "$AGENT/api.sh"

: >"$RUN/bearer"

start_session() {
  jq -n --arg token "$(argument slipway.token)" --arg mac "$(argument slipway.mac)" --arg uuid "$(line "$SYS/class/dmi/id/product_uuid" | tr A-Z a-z)" \
    '{version: 1, token: $token} + (if $mac == "" then {} else {bootMac: $mac} end) + (if $uuid == "" then {} else {uuid: $uuid[:64]} end)' >"$RUN/hello"
  tries=0
  while :; do
    status=$(fetch_to "$RUN/welcome" -X POST -H 'content-type: application/json' --data-binary "@$RUN/hello" "$ROOT/session")
    case $status in
      200) break ;;
      4*)
        say "the provider refuses this boot ($status): $(jq -r '.error.message // empty' "$RUN/welcome" 2>/dev/null)"
        return 1
        ;;
    esac
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { say "nobody answers at $SERVER: $(cat "$RUN/welcome.error")"; return 1; }
    sleep 2
  done
  jq -r '"Authorization: Bearer \(.session)"' "$RUN/welcome" >"$RUN/bearer"
  HEARTBEAT_MS=$(jq -r .heartbeatMs "$RUN/welcome")
  rm -f "$RUN/hello" "$RUN/welcome"
  say "the provider knows me"
}

send_inventory() {
  "$AGENT/inventory.sh" >"$RUN/inventory" || return 1
  until [ "$(post inventory "$RUN/inventory")" = 204 ]; do
    [ -e "$RUN/unknown" ] && return 1
    sleep 2
  done
}

# One heartbeat. Notes in files what follows from the answer, and ends the order in hand where it does not stand.
heartbeat() {
  offset=$(cat "$RUN/log.sent" 2>/dev/null || echo 0)
  # JSON wants text: what is none becomes a question mark. Its length in bytes stays as it was.
  tail -c +$((offset + 1)) "$RUN/log" 2>/dev/null | head -c 16000 | tr -c '\011\012\040-\176' '?' >"$RUN/log.part"
  order=$(jq -r '.id // empty' "$RUN/order" 2>/dev/null)
  percent=$(sed -n 1p "$RUN/progress" 2>/dev/null)
  jq -n --argjson uptime "$(uptime_ms)" --arg order "$order" --arg percent "$percent" --arg message "$(sed -n 2p "$RUN/progress" 2>/dev/null)" \
    --argjson offset "$offset" --rawfile text "$RUN/log.part" \
    '{uptimeMs: $uptime} + (if $order == "" then {} else {orderId: $order} + (if $percent == "" then {} else {percent: ($percent | tonumber)} end)
      + (if $message == "" then {} else {message: $message[:256]} end) end) + (if $text == "" then {} else {log: {offset: $offset, text: $text}} end)' >"$RUN/beat"
  case $(fetch_to "$RUN/beaten" -X POST -H 'content-type: application/json' --data-binary "@$RUN/beat" "$ROOT/heartbeat") in
    200)
      echo $((offset + $(wc -c <"$RUN/log.part"))) >"$RUN/log.sent"
      # The answer is about the order that was in hand when it was asked for.
      if [ -n "$order" ] && [ "$(jq -r .stands "$RUN/beaten")" = false ] && [ "$(jq -r .id "$RUN/order" 2>/dev/null)" = "$order" ]; then
        : >"$RUN/superseded"
        end_work
      fi
      ;;
    401)
      : >"$RUN/unknown"
      end_work
      ;;
  esac
}

end_work() {
  group=$(cat "$RUN/work" 2>/dev/null)
  [ -n "$group" ] && kill -9 -- "-$group" 2>/dev/null
}

heartbeats() {
  seconds=$((HEARTBEAT_MS / 1000))
  while :; do
    heartbeat
    if [ $seconds -gt 0 ]; then sleep $seconds; else usleep $((HEARTBEAT_MS * 1000)); fi
  done
}

failed() { jq -n --arg code "$1" --arg message "$2" '{outcome: "failed", code: $code, message: $message[:1024]}' >"$RUN/result"; }

# Works on the order in $RUN/order, in a process group of its own, which is ended where the order does not stand any more.
work() {
  kind=$(jq -r .kind "$RUN/order")
  rm -f "$RUN/result" "$RUN/superseded" "$RUN/progress"
  say "ordered to $kind"
  setsid sh -c 'echo $$ >"$1/work"; exec "$2/$3.sh"' - "$RUN" "$AGENT" "$kind" &
  wait $!
  code=$?
  rm -f "$RUN/work"
  if [ -e "$RUN/superseded" ]; then
    failed superseded 'the order was broken off: it does not stand any more'
  elif [ ! -s "$RUN/result" ]; then
    failed internal "the work ended with $code and without a result; the console says why"
  fi
  say "$kind: $(jq -r 'if .outcome == "done" then "done" else "\(.code): \(.message)" end' "$RUN/result")"
}

# Sends the result until it is taken, or nobody wants it.
send_result() {
  id=$(jq -r .id "$RUN/order")
  while [ ! -e "$RUN/unknown" ]; do
    case $(post "order/$id/result" "$RUN/result") in 204 | 400 | 404 | 409 | 413) break ;; esac
    sleep 1
  done
  rm -f "$RUN/order"
}

# Gets the next order into $RUN/order, or does at once what needs no work.
next_order() {
  case $(fetch_to "$RUN/asked" "$ROOT/order") in
    200) ;;
    401) : >"$RUN/unknown" && return ;;
    *) sleep 2 && return ;;
  esac
  case $(jq -r .kind "$RUN/asked") in
    inspect)
      mv "$RUN/asked" "$RUN/order"
      if send_inventory; then echo '{"outcome": "done"}' >"$RUN/result"; else failed internal 'the hardware could not be read'; fi
      send_result
      ;;
    wipe | install)
      mv "$RUN/asked" "$RUN/order"
      work
      send_result
      ;;
    power-off) finish poweroff ;;
    reboot) finish reboot ;;
    wait) usleep $(($(jq -r '.askAgainMs // 2000' "$RUN/asked") * 1000)) ;;
    *) say "an order that this agent does not know: $(jq -r .kind "$RUN/asked")" && sleep 5 ;;
  esac
}

# The last words are sent before the end.
finish() {
  say "ordered to $1"
  sync
  usleep 100000
  kill "$heartbeats" 2>/dev/null
  heartbeat
  tool "$1" -f
  sleep 60
}

start_session || exit 1
# Even the first inventory may take a while: a sick controller answers slowly. The provider sees that the machine lives.
heartbeats &
heartbeats=$!
send_inventory || exit 1
while [ ! -e "$RUN/unknown" ]; do next_order; done
say 'the provider does not know this session any more'
