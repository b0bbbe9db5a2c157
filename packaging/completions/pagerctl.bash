# SPDX-License-Identifier: Apache-2.0
# pagerctl(1) for bash, by `pagerctl completion bash`.

_pagerctl_commands()
{
	cat <<'END'
status:how pagerd is, at a glance
top:versions and sessions, live
versions:versions that are installed or running
sessions:the sessions
create:create a session that serves IMAGE, or that is a fork of a template
show:everything about one session
pages:how each page of a session is: absent, clean, dirty, removed
map:a picture of a session's memory
close:end a session
complete:fill all its memory, then let the VM go without a pager
drain:give a version no new sessions; it exits with the last
shutdown:stop pagerd and every worker for good; refused while sessions live
upgrade:start a version, make it current, drain the others
handoff:move a session, or those of a version, to another version while they are served
retry:serve a session again that is held because workers died with it
restore:have a Firecracker load a snapshot and serve its memory
pause:pause the VM of a Firecracker, and write a snapshot of it if asked to
template:images that sessions are made of by name; warm brings one into memory ahead of a rush
events:follow what happens to sessions and workers
doctor:what is missing on this host, and the remedy
record:record the order in which its guest touches its pages
hotlist:look at hot lists, convert them, merge them
completion:print what makes a shell complete command lines of pagerctl
help:what a command does, its options and examples
stats:counters, in all and for each version
config:the options; with NAME=VALUE, change them until the next reload
END
}

_pagerctl_options()
{
	case $1 in
	sessions) cat <<'END'
--all:ended ones too
END
	;;
	create) cat <<'END'
--id:the session's id (default: the instance, else one is made up; pause --diff: by the VMM's process)
--instance:the VM's name
--template:the template that it is a fork of, instead of IMAGE
--record:record the order in which its guest touches its pages, beside the image
--hot-list:pages that a restore touches first, in order (default of a session: IMAGE.hot)
--prefetch:whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list
--cache-key:images of one key are the same (default: the file)
--vmm-uid:user that may connect to the session (default: yours; restore by root: Firecracker's)
--vmm-gid:group of the session's socket (default: yours)
--memfd:the VMM sends the memfd behind its memory too
--track-writes:track the guest's writes, also for a VMM that does not ask for it; see pages
--overlay:a file in place of the image from OFFSET on, such as 4K; may be given again
--on-image-error:when the image cannot be read: hold, poison or kill (default: pagerd's)
--handshake-timeout:how long to wait for the VMM
--cluster-min:least that one fault fills, such as 4K
--cluster-max:most that one fault fills, such as 64K
END
	;;
	show) cat <<'END'
--wait:until it is opened, serving, graduated or closed
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	pages) cat <<'END'
--dirty:only those that a snapshot must have: dirty, or perhaps so
--new:take a new picture, which the next one can start from
--since:dirty since the picture of that number, which must be the last new one
--raw:bitmaps into FILE, or - for the standard output; see pagerd-api(7)
END
	;;
	map) cat <<'END'
--picture:into FILE, which ends in .svg or .png, instead of the terminal
END
	;;
	complete) cat <<'END'
--join:wait for the completion that another client has begun
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	drain) cat <<'END'
--wait:wait until its worker has exited
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	shutdown) cat <<'END'
--force:end the sessions that live, whatever becomes of their VMs
END
	;;
	upgrade) cat <<'END'
--handoff:move the sessions of other versions at once, too
END
	;;
	handoff) cat <<'END'
--from:the version whose sessions are moved (default: every other)
--to:the version that they are moved to
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	retry) cat <<'END'
--to:the version that they are moved to
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	restore) cat <<'END'
--id:the session's id (default: the instance, else one is made up; pause --diff: by the VMM's process)
--instance:the VM's name
--template:the template that it is a fork of, instead of IMAGE
--record:record the order in which its guest touches its pages, beside the image
--hot-list:pages that a restore touches first, in order (default of a session: IMAGE.hot)
--prefetch:whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list
--cache-key:images of one key are the same (default: the file)
--vmm-uid:user that may connect to the session (default: yours; restore by root: Firecracker's)
--vmm-gid:group of the session's socket (default: yours)
--track-writes:track the guest's writes, also for a VMM that does not ask for it; see pages
--overlay:a file in place of the image from OFFSET on, such as 4K; may be given again
--on-image-error:when the image cannot be read: hold, poison or kill (default: pagerd's)
--cluster-min:least that one fault fills, such as 4K
--cluster-max:most that one fault fills, such as 64K
--api-sock:the API socket of Firecracker
--snapshot:the snapshot's state file
--image:the snapshot's memory file; the image of a list that does not say which
--jail:the directory that is the root of Firecracker's files
--load:more members of the load request, such as network_overrides
--no-resume:leave the VM paused
--fallback:on failure try again without pagerd: with a mapped file
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	pause) cat <<'END'
--id:the session's id (default: the instance, else one is made up; pause --diff: by the VMM's process)
--api-sock:the API socket of Firecracker
--snapshot:the snapshot's state file
--jail:the directory that is the root of Firecracker's files
--mem:where the snapshot's memory is written
--diff:write only what changed, over a copy of the image or over the snapshot before
--balloon:have the guest give back free memory first
--balloon-timeout:how long the guest may take for that (default: 2s)
--resume:let the VM run again after the snapshot
--timeout:give up after this long, such as 500ms, 5s or 2m
END
	;;
	template) cat <<'END'
--hot-list:pages that a restore touches first, in order (default of a session: IMAGE.hot)
--prefetch:whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list
--cache-key:images of one key are the same (default: the file)
END
	;;
	events) cat <<'END'
--recent:begin with the last events, as far as pagerd keeps them
END
	;;
	doctor) cat <<'END'
--vmm-uid:user that may connect to the session (default: yours; restore by root: Firecracker's)
END
	;;
	record) cat <<'END'
--stop:end the recording and save what there is
--out:where the hot list goes (default: IMAGE.hot)
END
	;;
	hotlist) cat <<'END'
--cache-key:images of one key are the same (default: the file)
--format:to write: pagerd, hpl1 or log (default: pagerd; of such a list, log)
--region:where a region of HPL1 is in the image; in their order (default: all of it is one)
--least:merge: pages of so many of the lists (default: of all)
--image:the snapshot's memory file; the image of a list that does not say which
END
	;;
	esac
	cat <<'END'
--socket:pagerd's admin socket (default: $PAGERD_SOCKET, else /run/pagerd/admin.sock)
--json:the answer as pagerd gave it, for programs
--help:this text, or that of a command
--version:the version of pagerctl
END
}

_pagerctl_value()
{
	case $1:$2 in
	*:--socket) echo file ;;
	*:--json) echo none ;;
	*:--help) echo none ;;
	*:--version) echo none ;;
	sessions:--all) echo none ;;
	create:--id) echo any ;;
	create:--instance) echo any ;;
	create:--template) echo templates ;;
	create:--record) echo none ;;
	create:--hot-list) echo file ;;
	create:--prefetch) echo words on off sequential ;;
	create:--cache-key) echo any ;;
	create:--vmm-uid) echo any ;;
	create:--vmm-gid) echo any ;;
	create:--memfd) echo none ;;
	create:--track-writes) echo none ;;
	create:--overlay) echo any ;;
	create:--on-image-error) echo words hold poison kill ;;
	create:--handshake-timeout) echo any ;;
	create:--cluster-min) echo any ;;
	create:--cluster-max) echo any ;;
	show:--wait) echo words opened serving graduated closed ;;
	show:--timeout) echo any ;;
	pages:--dirty) echo none ;;
	pages:--new) echo none ;;
	pages:--since) echo any ;;
	pages:--raw) echo file ;;
	map:--picture) echo file ;;
	complete:--join) echo none ;;
	complete:--timeout) echo any ;;
	drain:--wait) echo none ;;
	drain:--timeout) echo any ;;
	shutdown:--force) echo none ;;
	upgrade:--handoff) echo none ;;
	handoff:--from) echo versions ;;
	handoff:--to) echo versions ;;
	handoff:--timeout) echo any ;;
	retry:--to) echo versions ;;
	retry:--timeout) echo any ;;
	restore:--id) echo any ;;
	restore:--instance) echo any ;;
	restore:--template) echo templates ;;
	restore:--record) echo none ;;
	restore:--hot-list) echo file ;;
	restore:--prefetch) echo words on off sequential ;;
	restore:--cache-key) echo any ;;
	restore:--vmm-uid) echo any ;;
	restore:--vmm-gid) echo any ;;
	restore:--track-writes) echo none ;;
	restore:--overlay) echo any ;;
	restore:--on-image-error) echo words hold poison kill ;;
	restore:--cluster-min) echo any ;;
	restore:--cluster-max) echo any ;;
	restore:--api-sock) echo file ;;
	restore:--snapshot) echo file ;;
	restore:--image) echo file ;;
	restore:--jail) echo file ;;
	restore:--load) echo any ;;
	restore:--no-resume) echo none ;;
	restore:--fallback) echo words file ;;
	restore:--timeout) echo any ;;
	pause:--id) echo any ;;
	pause:--api-sock) echo file ;;
	pause:--snapshot) echo file ;;
	pause:--jail) echo file ;;
	pause:--mem) echo file ;;
	pause:--diff) echo none ;;
	pause:--balloon) echo none ;;
	pause:--balloon-timeout) echo any ;;
	pause:--resume) echo none ;;
	pause:--timeout) echo any ;;
	template:--hot-list) echo file ;;
	template:--prefetch) echo words on off sequential ;;
	template:--cache-key) echo any ;;
	events:--recent) echo none ;;
	doctor:--vmm-uid) echo any ;;
	record:--stop) echo none ;;
	record:--out) echo file ;;
	hotlist:--cache-key) echo any ;;
	hotlist:--format) echo words pagerd hpl1 log ;;
	hotlist:--region) echo any ;;
	hotlist:--least) echo any ;;
	hotlist:--image) echo file ;;
	*) echo none ;;
	esac
}

_pagerctl_argument()
{
	case $1:$2 in
	create:0) echo file ;;
	show:0) echo sessions ;;
	pages:0) echo sessions ;;
	map:0) echo sessions ;;
	close:0) echo sessions ;;
	complete:0) echo sessions ;;
	drain:0) echo versions ;;
	upgrade:0) echo versions ;;
	handoff:0) echo sessions ;;
	handoff:1) echo versions ;;
	retry:0) echo sessions ;;
	template:0) echo words list show add remove promote demote warm ;;
	template:1) echo templates ;;
	template:2) echo file ;;
	record:0) echo sessions ;;
	hotlist:0) echo words show convert merge ;;
	hotlist:*) echo file ;;
	completion:0) echo words bash zsh fish ;;
	help:0) echo commands ;;
	config:*) echo options ;;
	*) echo none ;;
	esac
}

_pagerctl_add()
{
	local word
	while IFS= read -r word; do
		[[ $word == "$cur"* ]] && COMPREPLY+=("$(printf %q "$word")")
	done
}

_pagerctl()
{
	local cur=${COMP_WORDS[COMP_CWORD]} command='' option='' kind i word n=0 socket=()
	COMPREPLY=()
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		if [[ $word == = ]]; then
			continue
		elif [[ $option ]]; then
			[[ $option == --socket ]] && socket=(--socket "$word")
			option=''
		elif [[ $word == --* ]]; then
			[[ $(_pagerctl_value "$command" "$word") == none ]] || option=$word
		elif [[ ! $command ]]; then
			command=$word
		else
			n=$((n + 1))
		fi
	done
	[[ $cur == = ]] && cur=''
	if [[ $option ]]; then
		kind=$(_pagerctl_value "$command" "$option")
	elif [[ $cur == -* ]]; then
		_pagerctl_add < <(_pagerctl_options "$command" | cut -d: -f1)
		return
	elif [[ $command ]]; then
		kind=$(_pagerctl_argument "$command" $n)
	else
		kind=commands
	fi
	case $kind in
	file)
		compopt -o filenames 2>/dev/null
		while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen -f -- "$cur")
		;;
	words*) _pagerctl_add < <(printf '%s\n' ${kind#words}) ;;
	commands) _pagerctl_add < <(_pagerctl_commands | cut -d: -f1) ;;
	options)
		compopt -o nospace 2>/dev/null
		_pagerctl_add < <("${COMP_WORDS[0]}" "${socket[@]}" completion options 2>/dev/null)
		;;
	sessions | versions | templates)
		_pagerctl_add < <("${COMP_WORDS[0]}" "${socket[@]}" completion "$kind" 2>/dev/null)
		;;
	esac
}

complete -F _pagerctl pagerctl
