#!/bin/sh
# ess-stream: sends the text of strace on the controller's Modbus programs to an ess-recorder.
# Needs root, busybox (sh, nc, sleep, grep, ls, mkdir, rm, mv, cat) and a static strace. Never touches the bus.
#
# strace holds the traced program while its output pipe is full. So strace starts only once nc is
# connected, and one look a second ends a connection that no longer takes the text.

HOST=@HOST@
STREAMS=@STREAMS@
STRACE=@STRACE@
RUN=@RUN@

CONNECT_SECONDS=10      # no connection, or no attached strace, after this long: give up and try again
UNSENT_BYTES=4096       # more than the text of one poll
UNSENT_SECONDS=10       # so much on the way at each look for so long: the network is stuck or too slow
GOOD_SECONDS=60         # a stream that held this long starts the waiting times afresh
LONGEST_WAIT_SECONDS=60 # between two tries; it begins with 1 s and doubles
LOOK_AGAIN_SECONDS=3    # while strace or the process is missing

[ -w "${RUN%/*}" ] || RUN=/tmp/${RUN##*/}

usage() {
    cat <<END
usage: sh $0 run | start | stop | status | install [FILE] | uninstall [FILE]
  run        stream in the foreground until Ctrl-C
  start      stream in the background
  stop       end the streams and let go of every program
  status     say what each stream does; exit 1 if none runs
  install    start at boot from FILE (default /etc/rc.local; a file named inittab gets a respawn line)
  uninstall  take that line out again
END
}

say() {
    # A repeated failure is told once, and stays readable in the state file.
    [ "$*" = "$said" ] || echo "ess-stream: $label: $*" >&2
    said=$*
    echo "$*" 2>/dev/null >"$RUN/$label.state"
}

# --- what /proc tells ---

look() { # PID -> name, state, tracer
    name='' state='' tracer=0
    [ -r "/proc/$1/status" ] && while read -r key value rest; do
        case $key in
            Name:) name=$value ;;
            State:) state="$value $rest" ;;
            TracerPid:) tracer=$value && break ;;
        esac
    done 2>/dev/null <"/proc/$1/status"
    [ -n "$name" ]
}

find_switches() { # PID -> switches: how often it went to sleep so far
    value=''
    while read -r key value && [ "$key" != voluntary_ctxt_switches: ]; do :; done 2>/dev/null <"/proc/$1/status"
    switches=$value
}

older() { # PID -> pid, the smaller of both
    { [ -n "$pid" ] && [ "$pid" -lt "$1" ]; } || pid=$1
}

find_process() { # NAME -> pid, the oldest of that name, or nothing
    pid=''
    for directory in /proc/[0-9]*; do
        read -r _ name 2>/dev/null <"$directory/status" && [ "$name" = "$1" ] && older "${directory#/proc/}"
    done
    # A program may have renamed its main thread; pidof also knows the name it was started by.
    [ -n "$pid" ] || for candidate in $(pidof "$1" 2>/dev/null); do older "$candidate"; done
}

find_all() { # "NAME+NAME" -> pids, and whether one is missing
    pids='' missing=no
    IFS=+
    for process in $1; do
        unset IFS
        find_process "$process"
        [ -n "$pid" ] || missing=yes
        pids="${pids:+$pids }$pid"
    done
    unset IFS
    pids=${pids% }
}

find_sockets() { # PID -> sockets, the inode numbers of its sockets, as a pattern
    sockets=''
    # shellcheck disable=SC2045 # the words are descriptors, not file names
    for word in $(ls -l "/proc/$1/fd" 2>/dev/null); do
        case $word in socket:*) word=${word#socket:?} sockets="$sockets${sockets:+|}${word%?}" ;; esac
    done
}

look_at_connection() { # -> link (01 is established), unsent (bytes on the way, hexadecimal)
    link=''
    [ -n "$sockets" ] || return 0
    for table in /proc/net/tcp /proc/net/tcp6; do
        # grep, because the kernel makes the table anew at each read, and the shell reads byte by byte.
        # shellcheck disable=SC2046 # the fields of the line
        set -- $(grep -E " ($sockets) " "$table" 2>/dev/null)
        link=$4 unsent=${5%:*}
        [ -z "$link" ] || break
    done
}

# --- letting go ---

let_go() { # PID: ends the strace on it, waits until it is free, and continues it if it was left stopped
    look "$1" || return 0
    holder=$tracer tries=0
    if [ "$holder" != 0 ]; then
        if look "$holder" && [ "$name" != "${STRACE##*/}" ]; then
            say "process $1 is traced by $name, process $holder: end that first"
            return 1
        fi
        kill -TERM "$holder" 2>/dev/null
        kill -CONT "$holder" 2>/dev/null
    fi
    while look "$1" && [ "$tracer" != 0 ]; do
        tries=$((tries + 1))
        # Only a strace that had eight seconds to detach is killed; the kernel then frees the program.
        [ "$tries" -eq 8 ] && kill -KILL "$holder" 2>/dev/null
        [ "$tries" -le 12 ] || { say "strace, process $holder, does not let go of process $1"; return 1; }
        sleep 1
    done
    case $state in T*) kill -CONT "$1" 2>/dev/null ;; esac
    return 0
}

end_attempt() {
    rm -f "$RUN/$label.wait" "$RUN/$label.go" "$RUN/$label.nc"
    # nc first: a strace that waits in a full pipe hears a signal only after the pipe is broken.
    [ -n "$nc" ] && kill -TERM "$nc" 2>/dev/null
    for pid in $pids; do let_go "$pid"; done
    nc=''
}

end_leftover() { # LABEL: what a killed run left of a stream
    label=$1 nc='' leftover='' link=''
    read -r leftover 2>/dev/null <"$RUN/$label.nc" && find_sockets "$leftover" && look_at_connection
    # The number may belong to another program by now: ours has a connection and reads a pipe.
    case "$link $(ls -l "/proc/$leftover/fd/0" 2>/dev/null)" in 0*pipe:*) nc=$leftover ;; esac
    find_all "$label"
    end_attempt
}

# --- one stream ---

parent_lives() {
    kill -0 "$main" 2>/dev/null && return
    end_attempt
    exit 1
}

pause() { # SECONDS
    remaining=$1
    while parent_lives && [ "$remaining" -gt 0 ]; do
        sleep 1
        remaining=$((remaining - 1))
    done
}

wait_for_go() { # in the process that becomes strace
    until [ -e "$RUN/$label.go" ]; do
        [ -e "$RUN/$label.wait" ] || [ -e "$RUN/$label.go" ] || return 1
        kill -0 "$stream_pid" 2>/dev/null || return 1
        sleep 1
    done
}

check_strace() { # says what is wrong with it, if anything
    "$STRACE" -V >/dev/null 2>&1 && return
    if [ -x "$STRACE" ]; then
        say "$STRACE does not run here: is it static, and built for this processor?"
    else
        say "strace is missing: copy a static strace for this processor to $STRACE and chmod +x it"
    fi
    return 1
}

check_processes() { # -> pids; says what is wrong with them, if anything
    find_all "$label"
    [ -n "$pids" ] || { say "no process of this name runs; waiting for it"; return 1; }
    for pid in $pids; do
        [ -r "/proc/$pid/environ" ] || { say "not permitted to trace process $pid: run this as root"; return 1; }
        let_go "$pid" || return 1
    done
}

connect() { # starts nc, and a process that becomes strace when told
    targets=''
    for pid in $pids; do targets="$targets -p $pid"; done
    : >"$RUN/$label.wait"
    # shellcheck disable=SC2086 # the targets are several words
    { wait_for_go && exec "$STRACE" $targets -ttt -s 1024 -xx -e trace=read,write; } 2>&1 |
        nc "$HOST" "$port" >/dev/null &
    nc=$!
    echo "$nc" >"$RUN/$label.nc"
    tries=0
    while sleep 1; do
        find_sockets "$nc"
        look_at_connection
        [ "$link" = 01 ] && return
        tries=$((tries + 1))
        look "$nc" || state=Z
        [ "${state%% *}" != Z ] && [ "$tries" -lt "$CONNECT_SECONDS" ] || break
        parent_lives
    done
    say "no connection to $HOST port $port: does the recorder run there? trying again"
    return 1
}

attach() { # -> holder, the strace that holds every process
    mv "$RUN/$label.wait" "$RUN/$label.go"
    tries=0
    while sleep 1; do
        holder='' free=''
        for pid in $pids; do
            look "$pid"
            holder=$tracer
            [ "$holder" = 0 ] && free=$pid
        done
        [ -z "$free" ] && return
        look_at_connection
        [ "$link" = 01 ] || { say "connection lost"; return 1; }
        tries=$((tries + 1))
        [ "$tries" -lt "$CONNECT_SECONDS" ] || break
        parent_lives
    done
    say "strace does not attach to process $free; to see why: $STRACE -p $free"
    return 1
}

watch() { # -> seconds, for how long all was well; returns when it no longer is
    unsent_for=0 held_before='' seconds=0
    while parent_lives && sleep 1; do
        look_at_connection
        [ "$link" = 01 ] || { say "connection lost"; return; }
        unsent_for=$((unsent_for + 1))
        [ "$((0x$unsent))" -ge "$UNSENT_BYTES" ] || unsent_for=0
        [ "$unsent_for" -lt "$UNSENT_SECONDS" ] || { say "the network does not keep up"; return; }

        held=''
        for pid in $pids; do
            look "$pid" && [ "$tracer" = "$holder" ] || { say "process $pid or its strace ended"; return; }
            case $state in *tracing*) held="$held $pid" ;; esac
        done
        # Held at two looks, and strace did not run between them: it sleeps in its full pipe.
        if [ -n "$held" ]; then
            find_switches "$holder"
            held="$held, strace $switches"
            [ "$held" != "$held_before" ] || { say "the network blocks process$held"; return; }
        fi
        held_before=$held

        seconds=$((seconds + 1))
        if [ "$missing" = yes ] && [ "$((seconds % 5))" -eq 0 ]; then
            attached=$pids
            find_all "$label"
            [ "$pids" = "$attached" ] || { say "another process appeared"; return; }
        fi
    done
}

stream() { # NAMES PORT: for ever
    label=$1 port=$2 nc='' pids='' said='' wait_seconds=1
    read -r stream_pid _ </proc/self/stat
    trap 'end_attempt; exit 0' TERM HUP
    while :; do
        seconds=0
        if check_strace && check_processes; then
            if connect && attach; then
                say "streaming process $pids to $HOST port $port"
                watch
            fi
            end_attempt
            [ "$seconds" -lt "$GOOD_SECONDS" ] || wait_seconds=1
            pause "$wait_seconds"
            wait_seconds=$((wait_seconds * 2))
            [ "$wait_seconds" -le "$LONGEST_WAIT_SECONDS" ] || wait_seconds=$LONGEST_WAIT_SECONDS
        else
            pause "$LOOK_AGAIN_SECONDS"
        fi
    done
}

# --- the main process, which starts the streams and starts them again ---

run_streams() {
    read -r main _ </proc/self/stat
    echo "$main" >"$RUN/pid"
    trap 'end_streams; exit 0' TERM INT HUP
    while :; do
        for stream in $STREAMS; do
            stream_pid=''
            read -r stream_pid 2>/dev/null <"$RUN/${stream%:*}.pid"
            [ -n "$stream_pid" ] && kill -0 "$stream_pid" 2>/dev/null && continue
            end_leftover "${stream%:*}"
            stream "${stream%:*}" "${stream##*:}" &
            echo $! >"$RUN/${stream%:*}.pid"
        done
        sleep 2
    done
}

end_streams() {
    for stream in $STREAMS; do
        stream_pid=''
        read -r stream_pid 2>/dev/null <"$RUN/${stream%:*}.pid"
        ours "$stream_pid" && kill -TERM "$stream_pid"
        set -- "$@" "$stream_pid"
    done
    for stream_pid in "$@"; do
        while ours "$stream_pid"; do sleep 1; done
    done
    for stream in $STREAMS; do end_leftover "${stream%:*}"; done
    rm -rf "$RUN"
}

# --- commands ---

ours() { # PID: is it a shell that runs this script?
    command_line=''
    [ -n "$1" ] && read -r command_line 2>/dev/null <"/proc/$1/cmdline"
    case $command_line in *"${0##*/}"*) return 0 ;; esac
    return 1
}

running() { # -> main
    main=''
    read -r main 2>/dev/null <"$RUN/pid"
    ours "$main"
}

claim() { # one run at a time
    label=start
    for tool in nc sleep grep ls mkdir mv rm cat; do
        command -v "$tool" >/dev/null 2>&1 && continue
        echo "ess-stream: $tool is missing: put a busybox that has it into the PATH" >&2
        exit 1
    done
    if ! mkdir "$RUN" 2>/dev/null; then
        # Another start may have made the directory just now, and not yet written its number.
        running || sleep 2
        running && { echo "ess-stream: already runs as process $main; to end it: sh $0 stop" >&2; exit 1; }
        end_streams
        mkdir "$RUN" || exit 1
    fi
}

status() {
    if running; then echo "runs as process $main"; else echo "does not run"; fi
    for stream in $STREAMS; do
        told='no news'
        read -r told 2>/dev/null <"$RUN/${stream%:*}.state"
        echo "${stream%:*}: $told"
    done
    running
}

boot() { # FILE, "add" or "remove": our line goes before "exit 0", or to the end
    case $0 in /*) script=$0 ;; *) script=$PWD/$0 ;; esac
    case $1 in *inittab) line="::respawn:/bin/sh $script run" ;; *) line="sh $script start || :" ;; esac
    [ -w "$1" ] || { echo "ess-stream: cannot write $1; its line would be: $line" >&2; exit 1; }
    missing=$2 new=$1.ess-new
    # A copy takes the place of the file at once: a power cut leaves the old or the new one, whole.
    cp -p "$1" "$new" && {
        while IFS= read -r text || [ -n "$text" ]; do
            [ "$text" = "$line" ] && continue
            [ "$text" = "exit 0" ] && [ "$missing" = add ] && printf '%s\n' "$line" && missing=''
            printf '%s\n' "$text"
        done <"$1"
        [ "$missing" != add ] || printf '%s\n' "$line"
    } >"$new" && mv "$new" "$1"
}

case $1 in
    run) claim && run_streams ;;
    start)
        claim
        check_strace
        # exec lets go of the caller's output for good; else ssh would wait for the stream to end.
        { exec </dev/null >/dev/null 2>&1 && run_streams; } &
        echo $! >"$RUN/pid"
        echo "started as process $!; what it does: sh $0 status"
        ;;
    stop)
        running && kill -TERM "$main"
        while running; do sleep 1; done
        end_streams
        echo "stopped"
        ;;
    status) status ;;
    install) boot "${2:-/etc/rc.local}" add && echo "starts at boot: $line" ;;
    uninstall) boot "${2:-/etc/rc.local}" remove && echo "no longer starts at boot" ;;
    help | --help) usage ;;
    *) usage >&2; exit 2 ;;
esac
