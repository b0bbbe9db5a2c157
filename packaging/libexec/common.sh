#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the scripts that packages call have in common.

WORKERS=${0%/*}/workers
WANTS_S=${WANTS_S:-60} # how long pagerd may take to answer

ctl() {
	timeout "$WANTS_S" pagerctl "$@"
}

# Asking a pagerd that was stopped would start it: its socket is systemd's.
is_running() {
	if [ -d /run/systemd/system ]; then
		systemctl is-active --quiet pagerd.service
	else
		ctl status >/dev/null 2>&1
	fi
}

# The ids of the live sessions, those of version $1 if given, one a line.  pagerctl prints a
# member on each line, and no string has a line of its own.  Fails when it has no answer.
list_sessions() {
	json=$(ctl --json sessions) || return
	printf '%s\n' "$json" | awk -v version="${1:-}" '
		{ value = $0; sub(/^[^:]*: "/, "", value); sub(/",?$/, "", value) }
		/^      "id": "/ { id = value }
		/^      "outcome": / { is_live = $2 == "null," }
		/^      "version": / { if (is_live && (version == "" || value == version)) print id }'
}

current_version() {
	ctl --json versions | awk '/^  "current": "/ { gsub(/[",]/, "", $2); print $2 }'
}

# Of the versions on standard input the newest; 1.2.3-rc1 is older than 1.2.3.
newest() {
	tr - '~' | sort -V | tail -n 1 | tr '~' -
}

# The processes of version $1 (default: any), of which there can be some without a pagerd.
list_workers() {
	for exe in /proc/[0-9]*/exe; do
		target=$(readlink "$exe" 2>/dev/null) || continue
		target=${target% (deleted)}
		case $target in
		"$WORKERS"/*/pager-worker)
			if [ -z "${1:-}" ] || [ "$target" = "$WORKERS/$1/pager-worker" ]; then
				basename "$(dirname "$exe")"
			fi
			;;
		esac
	done
}

# Whoever removes what serves sessions is told which, and is refused.
refuse_if_serving() {
	version=${1:-}
	what=${version:+version $version of the worker}
	what=${what:-pagerd}
	if is_running; then
		sessions=$(list_sessions "$version") || {
			echo "$what: pagerd does not say which sessions it serves; not removed" >&2
			exit 1
		}
		[ -n "$sessions" ] || return 0
		count=$(printf '%s\n' "$sessions" | wc -l)
		[ "$count" = 1 ] && count="$count session" || count="$count sessions"
		{
			echo "$what still serves $count; not removed:"
			printf '%s\n' "$sessions" | sed 's/^/  /'
			echo "Let them end or graduate (pagerctl complete SESSION)${version:+, or move them:}"
			[ -z "$version" ] || echo "  pagerctl handoff --from $version --to VERSION"
		} >&2
		exit 1
	fi
	pids=$(list_workers "$version" | tr '\n' ' ')
	[ -n "$pids" ] || return 0
	{
		echo "$what: pagerd does not run, but its workers still serve sessions; not removed."
		echo "Processes: $pids"
		echo "Start pagerd to see which sessions those are: pagerctl sessions"
	} >&2
	exit 1
}
