# SPDX-License-Identifier: Apache-2.0
# pagerctl(1) for fish, by `pagerctl completion fish`.
complete -c pagerctl -f
complete -c pagerctl -l socket -d 'pagerd\'s admin socket (default: $PAGERD_SOCKET, else /run/pagerd/admin.sock)' -r -F
complete -c pagerctl -l json -d 'the answer as pagerd gave it, for programs'
complete -c pagerctl -l help -d 'this text, or that of a command'
complete -c pagerctl -l version -d 'the version of pagerctl'
complete -c pagerctl -n __fish_use_subcommand -a status -d 'how pagerd is, at a glance'
complete -c pagerctl -n __fish_use_subcommand -a top -d 'versions and sessions, live'
complete -c pagerctl -n __fish_use_subcommand -a versions -d 'versions that are installed or running'
complete -c pagerctl -n __fish_use_subcommand -a sessions -d 'the sessions'
complete -c pagerctl -n '__fish_seen_subcommand_from sessions' -l all -d 'ended ones too'
complete -c pagerctl -n __fish_use_subcommand -a create -d 'create a session that serves IMAGE, or that is a fork of a template'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l id -d 'the session\'s id (default: the instance, else one is made up; pause --diff: by the VMM\'s process)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l instance -d 'the VM\'s name' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l template -d 'the template that it is a fork of, instead of IMAGE' -x -a '(pagerctl completion templates 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l record -d 'record the order in which its guest touches its pages, beside the image'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l hot-list -d 'pages that a restore touches first, in order (default of a session: IMAGE.hot)' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l prefetch -d 'whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list' -x -a 'on off sequential'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l cache-key -d 'images of one key are the same (default: the file)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l vmm-uid -d 'user that may connect to the session (default: yours; restore by root: Firecracker\'s)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l vmm-gid -d 'group of the session\'s socket (default: yours)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l memfd -d 'the VMM sends the memfd behind its memory too'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l track-writes -d 'track the guest\'s writes, also for a VMM that does not ask for it; see pages'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l overlay -d 'a file in place of the image from OFFSET on, such as 4K; may be given again' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l on-image-error -d 'when the image cannot be read: hold, poison or kill (default: pagerd\'s)' -x -a 'hold poison kill'
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l handshake-timeout -d 'how long to wait for the VMM' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l cluster-min -d 'least that one fault fills, such as 4K' -x
complete -c pagerctl -n '__fish_seen_subcommand_from create' -l cluster-max -d 'most that one fault fills, such as 64K' -x
complete -c pagerctl -n __fish_use_subcommand -a show -d 'everything about one session'
complete -c pagerctl -n '__fish_seen_subcommand_from show' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from show' -l wait -d 'until it is opened, serving, graduated or closed' -x -a 'opened serving graduated closed'
complete -c pagerctl -n '__fish_seen_subcommand_from show' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a pages -d 'how each page of a session is: absent, clean, dirty, removed'
complete -c pagerctl -n '__fish_seen_subcommand_from pages' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from pages' -l dirty -d 'only those that a snapshot must have: dirty, or perhaps so'
complete -c pagerctl -n '__fish_seen_subcommand_from pages' -l new -d 'take a new picture, which the next one can start from'
complete -c pagerctl -n '__fish_seen_subcommand_from pages' -l since -d 'dirty since the picture of that number, which must be the last new one' -x
complete -c pagerctl -n '__fish_seen_subcommand_from pages' -l raw -d 'bitmaps into FILE, or - for the standard output; see pagerd-api(7)' -r -F
complete -c pagerctl -n __fish_use_subcommand -a map -d 'a picture of a session\'s memory'
complete -c pagerctl -n '__fish_seen_subcommand_from map' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from map' -l picture -d 'into FILE, which ends in .svg or .png, instead of the terminal' -r -F
complete -c pagerctl -n __fish_use_subcommand -a close -d 'end a session'
complete -c pagerctl -n '__fish_seen_subcommand_from close' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n __fish_use_subcommand -a complete -d 'fill all its memory, then let the VM go without a pager'
complete -c pagerctl -n '__fish_seen_subcommand_from complete' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from complete' -l join -d 'wait for the completion that another client has begun'
complete -c pagerctl -n '__fish_seen_subcommand_from complete' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a drain -d 'give a version no new sessions; it exits with the last'
complete -c pagerctl -n '__fish_seen_subcommand_from drain' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from drain' -l wait -d 'wait until its worker has exited'
complete -c pagerctl -n '__fish_seen_subcommand_from drain' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a shutdown -d 'stop pagerd and every worker for good; refused while sessions live'
complete -c pagerctl -n '__fish_seen_subcommand_from shutdown' -l force -d 'end the sessions that live, whatever becomes of their VMs'
complete -c pagerctl -n __fish_use_subcommand -a upgrade -d 'start a version, make it current, drain the others'
complete -c pagerctl -n '__fish_seen_subcommand_from upgrade' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from upgrade' -l handoff -d 'move the sessions of other versions at once, too'
complete -c pagerctl -n __fish_use_subcommand -a handoff -d 'move a session, or those of a version, to another version while they are served'
complete -c pagerctl -n '__fish_seen_subcommand_from handoff' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from handoff' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from handoff' -l from -d 'the version whose sessions are moved (default: every other)' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from handoff' -l to -d 'the version that they are moved to' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from handoff' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a retry -d 'serve a session again that is held because workers died with it'
complete -c pagerctl -n '__fish_seen_subcommand_from retry' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from retry' -l to -d 'the version that they are moved to' -x -a '(pagerctl completion versions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from retry' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a restore -d 'have a Firecracker load a snapshot and serve its memory'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l id -d 'the session\'s id (default: the instance, else one is made up; pause --diff: by the VMM\'s process)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l instance -d 'the VM\'s name' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l template -d 'the template that it is a fork of, instead of IMAGE' -x -a '(pagerctl completion templates 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l record -d 'record the order in which its guest touches its pages, beside the image'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l hot-list -d 'pages that a restore touches first, in order (default of a session: IMAGE.hot)' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l prefetch -d 'whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list' -x -a 'on off sequential'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l cache-key -d 'images of one key are the same (default: the file)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l vmm-uid -d 'user that may connect to the session (default: yours; restore by root: Firecracker\'s)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l vmm-gid -d 'group of the session\'s socket (default: yours)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l track-writes -d 'track the guest\'s writes, also for a VMM that does not ask for it; see pages'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l overlay -d 'a file in place of the image from OFFSET on, such as 4K; may be given again' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l on-image-error -d 'when the image cannot be read: hold, poison or kill (default: pagerd\'s)' -x -a 'hold poison kill'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l cluster-min -d 'least that one fault fills, such as 4K' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l cluster-max -d 'most that one fault fills, such as 64K' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l api-sock -d 'the API socket of Firecracker' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l snapshot -d 'the snapshot\'s state file' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l image -d 'the snapshot\'s memory file; the image of a list that does not say which' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l jail -d 'the directory that is the root of Firecracker\'s files' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l load -d 'more members of the load request, such as network_overrides' -x
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l no-resume -d 'leave the VM paused'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l fallback -d 'on failure try again without pagerd: with a mapped file' -x -a 'file'
complete -c pagerctl -n '__fish_seen_subcommand_from restore' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a pause -d 'pause the VM of a Firecracker, and write a snapshot of it if asked to'
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l id -d 'the session\'s id (default: the instance, else one is made up; pause --diff: by the VMM\'s process)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l api-sock -d 'the API socket of Firecracker' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l snapshot -d 'the snapshot\'s state file' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l jail -d 'the directory that is the root of Firecracker\'s files' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l mem -d 'where the snapshot\'s memory is written' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l diff -d 'write only what changed, over a copy of the image or over the snapshot before'
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l balloon -d 'have the guest give back free memory first'
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l balloon-timeout -d 'how long the guest may take for that (default: 2s)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l resume -d 'let the VM run again after the snapshot'
complete -c pagerctl -n '__fish_seen_subcommand_from pause' -l timeout -d 'give up after this long, such as 500ms, 5s or 2m' -x
complete -c pagerctl -n __fish_use_subcommand -a template -d 'images that sessions are made of by name; warm brings one into memory ahead of a rush'
complete -c pagerctl -n '__fish_seen_subcommand_from template' -x -a 'list show add remove promote demote warm'
complete -c pagerctl -n '__fish_seen_subcommand_from template' -x -a '(pagerctl completion templates 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from template' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from template' -l hot-list -d 'pages that a restore touches first, in order (default of a session: IMAGE.hot)' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from template' -l prefetch -d 'whether the hot list is replayed: on (the default), off, or sequential, all of the image without a list' -x -a 'on off sequential'
complete -c pagerctl -n '__fish_seen_subcommand_from template' -l cache-key -d 'images of one key are the same (default: the file)' -x
complete -c pagerctl -n __fish_use_subcommand -a events -d 'follow what happens to sessions and workers'
complete -c pagerctl -n '__fish_seen_subcommand_from events' -l recent -d 'begin with the last events, as far as pagerd keeps them'
complete -c pagerctl -n __fish_use_subcommand -a doctor -d 'what is missing on this host, and the remedy'
complete -c pagerctl -n '__fish_seen_subcommand_from doctor' -l vmm-uid -d 'user that may connect to the session (default: yours; restore by root: Firecracker\'s)' -x
complete -c pagerctl -n __fish_use_subcommand -a record -d 'record the order in which its guest touches its pages'
complete -c pagerctl -n '__fish_seen_subcommand_from record' -x -a '(pagerctl completion sessions 2>/dev/null)'
complete -c pagerctl -n '__fish_seen_subcommand_from record' -l stop -d 'end the recording and save what there is'
complete -c pagerctl -n '__fish_seen_subcommand_from record' -l out -d 'where the hot list goes (default: IMAGE.hot)' -r -F
complete -c pagerctl -n __fish_use_subcommand -a hotlist -d 'look at hot lists, convert them, merge them'
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -x -a 'show convert merge'
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -r -F
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -l cache-key -d 'images of one key are the same (default: the file)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -l format -d 'to write: pagerd, hpl1 or log (default: pagerd; of such a list, log)' -x -a 'pagerd hpl1 log'
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -l region -d 'where a region of HPL1 is in the image; in their order (default: all of it is one)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -l least -d 'merge: pages of so many of the lists (default: of all)' -x
complete -c pagerctl -n '__fish_seen_subcommand_from hotlist' -l image -d 'the snapshot\'s memory file; the image of a list that does not say which' -r -F
complete -c pagerctl -n __fish_use_subcommand -a completion -d 'print what makes a shell complete command lines of pagerctl'
complete -c pagerctl -n '__fish_seen_subcommand_from completion' -x -a 'bash zsh fish'
complete -c pagerctl -n __fish_use_subcommand -a help -d 'what a command does, its options and examples'
complete -c pagerctl -n '__fish_seen_subcommand_from help' -x -a '(pagerctl completion commands 2>/dev/null)'
complete -c pagerctl -n __fish_use_subcommand -a stats -d 'counters, in all and for each version'
complete -c pagerctl -n __fish_use_subcommand -a config -d 'the options; with NAME=VALUE, change them until the next reload'
complete -c pagerctl -n '__fish_seen_subcommand_from config' -x -a '(pagerctl completion options 2>/dev/null)'
