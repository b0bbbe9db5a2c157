#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Finds out what is missing to build and test pagerd, and installs it where that is
# possible: as root on a system with apt-get.  Elsewhere it names each missing piece
# and exits 1.
#	packaging/deps.sh [build|test|lint|package]...	default: build test
# PAGERD_NO_INSTALL=1 only looks.
set -u

CC=${CC:-cc}
PKG_CONFIG=${PKG_CONFIG:-pkg-config}
PYTHON=${PYTHON:-python3}
missing=
packages=
optional=

# want PACKAGES WORDS...: the packages (alternatives joined by |) that bring WORDS.
want() {
	packages="$packages $1"
	shift
	missing="$missing
  $*"
}

has_command() {
	command -v "$1" >/dev/null 2>&1
}

has_header() {
	printf '#include <%s>\n' "$1" | $CC -E -x c - >/dev/null 2>&1
}

has_pc() {
	has_command "$PKG_CONFIG" && "$PKG_CONFIG" --exists "$1" 2>/dev/null
}

look_build() {
	has_command "${CC%% *}" || want gcc "a C compiler ($CC)"
	has_header stdio.h || want libc6-dev "the C library's headers"
	has_command ar || want binutils "ar"
	has_command "$PKG_CONFIG" || want "pkgconf|pkg-config" "pkg-config"
	has_header ev.h || want libev-dev "libev"
	has_pc msgpack-c || has_pc msgpack || want "libmsgpack-c-dev|libmsgpack-dev" "msgpack-c"
	has_pc libcap || want libcap-dev "libcap"
	has_pc jansson || want libjansson-dev "jansson"
	has_header http_parser.h || want libhttp-parser-dev "http-parser"
	has_pc libseccomp || want libseccomp-dev "libseccomp"
	has_header linux/userfaultfd.h || want linux-libc-dev "the kernel's headers"
}

look_test() {
	has_command "$PYTHON" || want python3 "python3 3.9 or later"
}

look_lint() {
	has_command clang || want clang "clang"
	has_command clang-format || want clang-format "clang-format"
	has_command mandoc || want mandoc "mandoc"
	has_command shellcheck || want shellcheck "shellcheck"
}

look_package() {
	has_command dpkg-buildpackage || want dpkg-dev "dpkg-buildpackage"
	has_command dh || want debhelper "debhelper"
	has_command lintian || want lintian "lintian"
	has_command mmdebstrap || want mmdebstrap "mmdebstrap"
	has_command systemd-nspawn || want systemd-container "systemd-nspawn"
}

look() {
	missing=
	packages=
	optional=
	for purpose in $purposes; do
		case $purpose in
		build) look_build ;;
		test) look_test ;;
		lint) look_lint ;;
		package) look_package ;;
		*)
			echo "packaging/deps.sh: $purpose is not one of build, test, lint, package" >&2
			exit 2
			;;
		esac
	done
	has_header sys/sdt.h || optional="$optional systemtap-sdt-dev"
	has_pc ncursesw || optional="$optional libncurses-dev"
	has_pc cairo-svg || optional="$optional libcairo2-dev"
	# The model of a page is not run without it, which the check says.
	case " $purposes " in *" test "*) has_command spin || optional="$optional spin"; has_command tmux || optional="$optional tmux" ;; esac
}

# Of alternatives joined by |, the first that the archive has.
pick() {
	for candidate in $(echo "$1" | tr '|' ' '); do
		if apt-cache show "$candidate" 2>/dev/null | grep -q '^Package:'; then
			echo "$candidate"
			return
		fi
	done
	echo "${1%%|*}"
}

picked() {
	for alternatives in $packages $optional; do
		pick "$alternatives"
	done
}

install_missing() {
	log=$(mktemp) || return 1
	echo "installing:$(echo "$missing" | tr '\n' ' ' | tr -s ' ')"
	export DEBIAN_FRONTEND=noninteractive
	if ! apt-get update >"$log" 2>&1; then
		echo "apt-get update failed:" >&2
		tail -n 5 "$log" >&2
	fi
	# shellcheck disable=SC2046 # one word for each package
	if ! apt-get install -y --no-install-recommends $(picked) >"$log" 2>&1; then
		echo "apt-get install failed:" >&2
		tail -n 15 "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
}

may_install() {
	[ "${PAGERD_NO_INSTALL:-0}" != 1 ] && [ "$(id -u)" = 0 ] && has_command apt-get
}

# What is good to have and in the archive that is known already; whether it comes or not.
install_optional() {
	may_install || return 0
	for alternatives in $optional; do
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			"$alternatives" >/dev/null 2>&1 || :
	done
}

purposes=${*:-build test}
look
if [ -z "$missing" ]; then
	[ -z "$optional" ] || install_optional
	exit 0
fi
if may_install; then
	install_missing && look
	[ -n "$missing" ] || exit 0
fi
{
	echo "missing:$missing"
	if has_command apt-get; then
		echo "install with: apt-get install $(picked | tr '\n' ' ')"
	else
		echo "on Debian these are the packages:$packages $optional"
	fi
} >&2
exit 1
