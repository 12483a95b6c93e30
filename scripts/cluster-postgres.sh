# shellcheck shell=bash
# The Postgres pair of ./dev cluster, and the watchdog that promotes its standby. Sourced by scripts/cluster.sh.
#
# A commit returns once the synchronous standby has it. The watchdog promotes the standby only while that is so, hence the new
# primary has every commit that returned. The former primary may run on, for it may be frozen and can't be asked: what fences
# it is that its commits wait for a standby that no longer replicates from it. Once it wakes up, the watchdog tries to commit
# there, notes the result in fencing.log, stops it, and makes it the standby of the new primary.

# How long a primary may be silent until the standby is promoted, in seconds. A busy machine is slow, not dead.
pair_patience=10
amqp_ports=() dist_ports=() postgres_ports=() # as the settings say

pair_primary() { cat "$services/primary"; }
pair_sync() { cat "$services/sync"; }
pair_other() { if [ "$1" = postgres-a ]; then echo postgres-b; else echo postgres-a; fi; }
pair_home() { echo "$data/postgres/$1"; }
pair_port() { if [ "$1" = postgres-a ]; then echo "${postgres_ports[0]}"; else echo "${postgres_ports[1]}"; fi; }
pair_url() {
    printf 'postgres://voice_otp:%s@127.0.0.1:%s,127.0.0.1:%s/voice_otp?target_session_attrs=read-write' \
        "$postgres_password" "${postgres_ports[@]}"
}

# Replaces a file of the watchdog's, whole.
note() { echo "$2" >"$services/$1.new" && mv "$services/$1.new" "$services/$1"; }

# Makes the first primary and starts the watchdog, which makes the standby; or starts the watchdog alone.
pair_start() {
    if [ ! -f "$services/primary" ]; then
        "${as[@]}" mkdir -p "$(pair_home postgres-a)"
        postgres_make "$(pair_home postgres-a)" postgres-a
        # shellcheck disable=SC2016 # $1 is for the inner shell
        echo "include = 'pair.conf'" | "${as[@]}" sh -c 'cat >>"$1"' sh "$(pair_home postgres-a)/data/postgresql.conf"
        pair_synchronize postgres-a none
        echo "*:*:*:voice_otp:$postgres_password" | put "$data/postgres/passwords"
        note sync none
        note primary postgres-a
        pair_run postgres-a
        await postgres-a pair_ready_a 60
    fi
    running watchdog || pair_start_watchdog
}
# It runs as we do, since it starts servers. The directory's name shows `running` that it is ours.
pair_start_watchdog() {
    local as=(env)
    spawn watchdog "$root/dev" cluster watch "$data/"
}
pair_ready_a() { pair_ask postgres-a 'select 1' >/dev/null 2>&1; }

# Starts a server. Its cluster_name is the name under which it is a standby.
pair_run() {
    spawn "$1" "$postgres_bin/postgres" -D "$(pair_home "$1")/data" -c cluster_name="$1" -c listen_addresses=127.0.0.1 \
        -c port="$(pair_port "$1")" -c unix_socket_directories= -c max_connections=200 -c wal_keep_size=256MB \
        -c wal_sender_timeout=10s -c wal_receiver_timeout=10s
}

# Asks a server, which must answer within five seconds. Killed, psql doesn't cancel its statement: a cancelled commit that
# waits for a standby is a commit.
pair_ask() {
    timeout -s KILL 5 "${as[@]}" env PGPASSFILE="$data/postgres/passwords" PGCONNECT_TIMEOUT=4 \
        "$postgres_bin/psql" -XAtq -h 127.0.0.1 -p "$(pair_port "$1")" -U voice_otp -d postgres -c "$2" </dev/null
}

# Writes which standby a server's commits wait for (`none`: for none).
pair_synchronize() {
    local name=$2
    [ "$name" != none ] || name=''
    echo "synchronous_standby_names = '${name:+\"$name\"}'" | put "$(pair_home "$1")/data/pair.conf"
}

# ---- The watchdog

pair_stopping=''
pair_watch() {
    local primary silent_since='' unsynchronous=0
    trap 'pair_stopping=yes' TERM
    while [ -z "$pair_stopping" ]; do
        primary=$(pair_primary)
        if pair_ask "$primary" 'select 1' >/dev/null 2>&1; then
            silent_since=''
            pair_keep_standby "$primary" || say "the standby is not in order yet"
        else
            : "${silent_since:=$SECONDS}"
            if ! running "$primary" || [ $((SECONDS - silent_since)) -ge "$pair_patience" ]; then
                pair_fail_over "$primary" && silent_since=''
            fi
        fi
        sleep 1
    done
}

# Promotes the standby, if every commit that returned is there.
pair_fail_over() {
    local primary=$1 standby
    standby=$(pair_other "$1")
    if [ "$(pair_sync)" = "$standby" ] && running "$standby" && pair_ask "$standby" 'select 1' >/dev/null; then
        say "$(date +%T) $primary is $(if running "$primary"; then echo silent; else echo dead; fi): promoting $standby"
        note sync none
        pair_synchronize "$standby" none
        pair_ask "$standby" 'select pg_reload_conf()' >/dev/null
        (cd / && limited 60 "${as[@]}" "$postgres_bin/pg_ctl" promote -s -w -t 50 -D "$(pair_home "$standby")/data") || return 1
        note primary "$standby"
        say "$(date +%T) $standby is the primary"
    elif ! running "$primary"; then
        say "$(date +%T) $primary is dead, and no standby has all its commits: starting it again"
        pair_run "$primary"
    else
        return 1
    fi
}

# Sees to it that a primary has a synchronous standby.
pair_keep_standby() {
    local primary=$1 standby state
    standby=$(pair_other "$1")
    if running "$standby" && [ ! -e "$(pair_home "$standby")/data/standby.signal" ]; then
        # A former primary. While it is frozen there is nothing to do.
        ! frozen "$standby" || return 0
        pair_try_former "$standby"
        halt "$standby" QUIT 20
    fi
    if ! running "$standby"; then
        pair_make_standby "$primary" "$standby" || return 1
    fi
    state=$(pair_ask "$primary" "select sync_state from pg_stat_replication where application_name = '$standby' and state = 'streaming'") ||
        return 1
    if [ "$(pair_sync)" = "$standby" ]; then
        if [ "$state" = sync ]; then unsynchronous=0; else unsynchronous=$((unsynchronous + 1)); fi
        [ "$unsynchronous" -ge 5 ] || return 0
        say "$(date +%T) $standby does not replicate: $primary goes on without it"
        note sync none
        pair_synchronize "$primary" none
        pair_ask "$primary" 'select pg_reload_conf()' >/dev/null
        # It may have lost track of the primary for good.
        halt "$standby" QUIT 20
    elif [ -n "$state" ]; then
        pair_make_synchronous "$primary" "$standby"
    fi
}

# Tries to commit at a primary that has been replaced meanwhile, and notes what came of it.
pair_try_former() {
    local name=$1
    if [ "$(pair_ask "$name" 'select pg_is_in_recovery()' 2>/dev/null)" != f ]; then
        echo "$(date +%T) $name answered no query" >>"$services/fencing.log"
    elif pair_ask "$name" "begin; create table former_primary (); commit" >/dev/null 2>&1; then
        echo "$(date +%T) $name COMMITTED as a former primary" >>"$services/fencing.log"
    else
        echo "$(date +%T) $name took a connection as a former primary, and no commit returned" >>"$services/fencing.log"
    fi
    tail -n 1 "$services/fencing.log" >&2
}

# Replaces a server's data by a copy of the primary's, and starts it as its standby.
pair_make_standby() {
    local primary=$1 standby=$2 home
    home=$(pair_home "$2")
    say "$(date +%T) making $standby the standby of $primary"
    rm -rf "$home"
    "${as[@]}" mkdir -m 700 "$home"
    (
        cd /
        timeout -s KILL 120 "${as[@]}" env PGPASSFILE="$data/postgres/passwords" "$postgres_bin/pg_basebackup" \
            -h 127.0.0.1 -p "$(pair_port "$primary")" -U voice_otp -D "$home/data" -R -X stream -c fast -N
    ) || return 1
    pair_synchronize "$standby" none
    pair_run "$standby"
}

# Makes a primary's commits wait for a standby, and notes it once all earlier commits are there too.
pair_make_synchronous() {
    local primary=$1 standby=$2 position
    pair_synchronize "$primary" "$standby"
    pair_ask "$primary" 'select pg_reload_conf()' >/dev/null || return 1
    # A server that is asked may have read the file before those that commit.
    sleep 2
    position=$(pair_ask "$primary" 'select pg_current_wal_flush_lsn()') || return 1
    [ "$(pair_ask "$primary" "select count(*) from pg_stat_replication
        where application_name = '$standby' and sync_state = 'sync' and flush_lsn >= '$position'")" = 1 ] || return 1
    note sync "$standby"
    say "$(date +%T) $standby is the synchronous standby of $primary"
}
