#!/usr/bin/env bash
# Runs a cluster of three real server processes on loopback until Ctrl-C.
#
#   scripts/cluster.sh            data under .cluster; a second start continues with it
#   scripts/cluster.sh --fresh    remove that data first
#   scripts/cluster.sh --temp     data in a temporary directory, removed at the end
#
# Each server takes five ports from its base on: API, HTTP, Raft, gossip, flags. The
# bases are 7400, 7410 and 7420; HOLDFAST_PORT_BASE moves the first of them and
# CLUSTER_DATA the data. Further arguments, after --, go to every server:
#
#   scripts/cluster.sh --temp -- --log-level debug
set -euo pipefail
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
cd "$(dirname "$self")/.."

first=${HOLDFAST_PORT_BASE:-7400}
bases=("$first" $((first + 10)) $((first + 20)))
ready_within=30 # seconds
data=${CLUSTER_DATA:-$PWD/.cluster}
temporary=
pids=()

fail() {
	echo "cluster.sh: $*" >&2
	exit 1
}

while [ $# -gt 0 ]; do
	case $1 in
	--fresh) rm -rf "$data" ;;
	--temp)
		data=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-cluster.XXXXXX")
		temporary=yes
		;;
	--)
		shift
		break
		;;
	-h | --help)
		sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$self"
		exit 0
		;;
	*) fail "unknown argument $1; see scripts/cluster.sh --help" ;;
	esac
	shift
done

# stop_servers ends them together: each hands over and drains on SIGTERM. What
# has not ended after 10 s is killed.
stop_servers() {
	local pid alive
	for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
	for _ in {1..100}; do
		alive=
		for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then alive=yes; fi; done
		if [ -z "$alive" ]; then return; fi
		sleep 0.1
	done
	for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
}

stop_all() {
	trap '' INT TERM
	if [ "${#pids[@]}" -gt 0 ]; then stop_servers; fi
	if [ -n "$temporary" ]; then rm -rf "$data"; fi
}
trap stop_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# in_use tells whether somebody listens on a port of loopback.
in_use() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# ready asks a server whether it serves.
ready() {
	local status
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf 'GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n' >&3
	read -r -t 2 _ status _ <&3 || status=
	exec 3>&-
	[ "$status" = 200 ]
}

for base in "${bases[@]}"; do
	for port in "$base" $((base + 1)) $((base + 2)) $((base + 3)) $((base + 4)); do
		if in_use "$port"; then fail "port $port is in use; is another cluster running?"; fi
	done
done

mkdir -p "$data"
echo "Building…"
go build -o "$data/bin/" ./cmd/controlplane ./cmd/holdfast

join= addrs=
for base in "${bases[@]}"; do
	join=$join${join:+,}127.0.0.1:$((base + 3))
	addrs=$addrs${addrs:+,}127.0.0.1:$base
done

# serve becomes a server; the line is the same for every start.
serve() {
	exec "$data/bin/controlplane" --data-dir "$data/server-$1" --port-base "${bases[$1]}" \
		--expect "${#bases[@]}" --join "$join" "${@:2}"
}

for i in "${!bases[@]}"; do
	serve "$i" "$@" >>"$data/server-$i.log" 2>&1 &
	pids+=($!)
done

deadline=$((SECONDS + ready_within))
for i in "${!bases[@]}"; do
	until ready $((bases[i] + 1)) 2>/dev/null; do
		if ! kill -0 "${pids[$i]}" 2>/dev/null; then
			tail -n 20 "$data/server-$i.log" >&2
			fail "server $i has ended; the end of its log is above"
		fi
		if [ "$SECONDS" -ge "$deadline" ]; then
			tail -n 20 "$data/server-$i.log" >&2
			fail "server $i is not ready after $ready_within s; the end of its log is above"
		fi
		sleep 0.1
	done
done

echo
echo "Three servers are ready:"
for i in "${!bases[@]}"; do
	echo "  server $i  API 127.0.0.1:${bases[$i]}  HTTP 127.0.0.1:$((bases[i] + 1))  flags 127.0.0.1:$((bases[i] + 4))  pid ${pids[$i]}  log $data/server-$i.log"
done
cat <<TEXT

In another terminal:

  cd $PWD
  export PATH=$data/bin:\$PATH HOLDFAST_ADDR=$addrs
  holdfast cluster members
  holdfast import flagd examples/otel-demo/otel-demo.flagd.json
  holdfast apply -f examples/storefront
  holdfast mode set storefront read-only --for 30m --reason "db failover"
  holdfast mode list

Kill one, see that nothing is lost and that writes go on, and start it again:

  kill -9 ${pids[0]}
  holdfast mode set storefront basic --for 30m --reason "still down"
  holdfast cluster members
  controlplane --data-dir $data/server-0 --port-base ${bases[0]} --expect ${#bases[@]} --join $join

Ctrl-C stops the servers.
TEXT

# A server that ends, as in the line above, does not end the others.
for pid in "${pids[@]}"; do wait "$pid" || true; done
echo "All servers have ended."
