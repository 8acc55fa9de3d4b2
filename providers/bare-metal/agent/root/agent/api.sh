# Speaking to the provider. Sourced after common.sh.
SERVER=${SERVER:-$(argument slipway.server)}
PIN=${PIN:-$(argument slipway.pin)}
ROOT=$SERVER/agent/v1

# An https endpoint is trusted by its pinned public key, and by nothing else; --insecure leaves that check as it is.
case $SERVER in
  https:*)
    [ -n "$PIN" ] || { say "slipway.server is https, and there is no slipway.pin"; exit 1; }
    TRUST="--insecure --pinnedpubkey $PIN"
    ;;
  *) TRUST= ;;
esac

# fetch_to FILE ARGUMENTS…: prints the status; 000 where nobody answered. The secret is never among the arguments of a process.
fetch_to() {
  file=$1
  shift
  # shellcheck disable=SC2086
  curl -sS -o "$file" -w '%{http_code}' --connect-timeout 5 --max-time 30 $TRUST -H "@$RUN/bearer" "$@" 2>"$file.error"
}

# post PATH FILE: sends the file as JSON and prints the status. For one process at a time.
post() { fetch_to "$RUN/answer" -X POST -H 'content-type: application/json' --data-binary "@$2" "$ROOT/$1"; }

# authorise: may the order in hand change a disk now? Asks until somebody answers. Returns only where the answer is yes and is still fresh; otherwise the order is
# dropped, and whoever asked ends.
authorise() {
  reply=$(mktemp "$RUN/confirm.XXXXXX")
  jq '{authority}' "$RUN/order" >"$reply.question"
  where=$ROOT/order/$(jq -r .id "$RUN/order")/confirm
  while :; do
    # Between the question and the effect as little as can be: the time runs.
    asked=$(uptime_ms)
    status=$(fetch_to "$reply" -X POST -H 'content-type: application/json' --data-binary "@$reply.question" "$where")
    case $status in
      200)
        within=$(sed -n 's/.*"beginWithinMs": *\([0-9][0-9]*\).*/\1/p' "$reply")
        took=$(($(uptime_ms) - asked))
        if [ $took -lt "${within:-0}" ]; then
          rm -f "$reply" "$reply.error" "$reply.question"
          return 0
        fi
        say "the order stands for ${within:-0} ms, and to ask took $took: asking again"
        ;;
      401 | 409)
        : >"$RUN/superseded"
        say "the order does not stand any more ($status); nothing more is touched"
        exit 3
        ;;
    esac
    sleep 1
  done
}
