# shellcheck shell=bash
# Servers of our own, from the programs that are installed: finds, starts and stops them. Sourced by scripts/services.sh, whose
# settings it reads; Linux only.

# ---- The programs

# Sets rabbitmq_bin and postgres_bin, installing packages if need be.
find_servers() {
    local missing=()
    find_rabbitmq || missing+=(rabbitmq-server)
    find_postgres || missing+=(postgresql)
    [ ${#missing[@]} -gt 0 ] || return 0
    install_packages "${missing[@]}"
    find_rabbitmq || die "no rabbitmq-server was found, although its package is installed"
    find_postgres || die "no initdb and postgres were found, although their package is installed"
}

# The wrapper that Debian puts on the PATH insists on its own account; the scripts behind it do not.
find_rabbitmq() {
    local dir
    command -v erl >/dev/null && command -v epmd >/dev/null || return 1
    for dir in /usr/lib/rabbitmq/bin /usr/lib/rabbitmq/lib/*/sbin "$(dirname "$(readlink -f "$(command -v rabbitmq-server)" || true)")"; do
        if [ -x "$dir/rabbitmq-server" ] && [ -e "$dir/rabbitmq-env" ]; then rabbitmq_bin=$dir && return; fi
    done
    return 1
}

# The newest Postgres that can make a database of its own.
find_postgres() {
    local dir
    while read -r dir; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then postgres_bin=$dir && return; fi
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV
        dirname "$(readlink -f "$(command -v postgres)" || true)")
    return 1
}

# Installs Debian packages as root or with a sudo that asks for no password; else says what to do.
install_packages() {
    local sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo -n)
    command -v apt-get >/dev/null || die "missing: $*. Install what these Debian packages hold"
    ${sudo[@]+"${sudo[@]}"} true 2>/dev/null ||
        die "missing: $*. Run: sudo apt-get update && sudo apt-get install --no-install-recommends $*"
    say "installing $*"
    (
        # While this file stands, the packages do not start servers of their own: ours do not need them.
        policy=/usr/sbin/policy-rc.d
        if [ ! -e "$policy" ]; then
            trap '${sudo[@]+"${sudo[@]}"} rm -f "$policy"' EXIT
            trap 'exit 130' INT TERM HUP
            printf '#!/bin/sh\nexit 101\n' | ${sudo[@]+"${sudo[@]}"} tee "$policy" >/dev/null
            ${sudo[@]+"${sudo[@]}"} chmod 755 "$policy"
        fi
        ${sudo[@]+"${sudo[@]}"} apt-get -q update &&
            ${sudo[@]+"${sudo[@]}"} env DEBIAN_FRONTEND=noninteractive \
                apt-get -q install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
    ) >&2 </dev/null || die "could not install $*: see above"
    [ ! -d /run/systemd/system ] || say "the packages' own servers are not needed here; systemctl disable keeps them off at the next boot"
    hash -r
}

# ---- Places and processes

# As root: the account that the servers run as. Else none.
private_account() {
    [ "$(id -u)" -eq 0 ] || return 0
    if id postgres >/dev/null 2>&1; then echo postgres; else echo nobody; fi
}

# Sets `as`, which runs a command as that account (from the settings) and in a clean environment.
set_as() {
    as=(env -i "PATH=$PATH" LANG=C.UTF-8 "HOME=$data/rabbitmq")
    [ -z "$account" ] || as=(setpriv --reuid "$account" --regid "$(id -g "$account")" --clear-groups "${as[@]}")
}

# Makes the directory of the servers' data: target/services, unless that account cannot reach it (a checkout under /root) or
# its path has characters that RabbitMQ's scripts cannot take.
private_places() {
    local name
    data=$services
    set_as
    if [[ ! $services =~ ^[A-Za-z0-9/._+-]+$ ]] || ! (cd / && "${as[@]}" test -x "$services"); then
        data=$(mktemp -d /var/tmp/voice-otp-dev.XXXXXX) || die "cannot make a directory in /var/tmp"
        chmod 711 "$data"
        ln -sfn "$data/rabbitmq" "$services/rabbitmq"
        ln -sfn "$data/postgres" "$services/postgres"
    fi
    for name in rabbitmq postgres; do
        rm -rf "${data:?}/$name" # left by a start that was killed
        mkdir -m 700 "$data/$name"
        [ -z "$account" ] || chown "$account:$(id -g "$account")" "$data/$name"
    done
}

# Whether a server's process lives and is ours: ids are used again, so it must mention our data. Its command line is empty for
# a moment while it becomes another program (sh, then setpriv, env, the server), and for good if it is a zombie.
running() {
    local pid words tries=50
    pid=$(cat "$services/$1.pid" 2>/dev/null) && [ -n "$pid" ] || return 1
    until words=$(cat "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null | tr '\0' '\n') && [ -n "$words" ]; do
        grep -qs '^VmSize' "/proc/$pid/status" && [ $((tries -= 1)) -gt 0 ] || return 1
        sleep 0.02
    done
    grep -qF -- "$data/" <<<"$words"
}

# Starts a server (name, then command) in a session of its own, so that Ctrl-C here does not reach it. Its parent stays with it:
# in a container whose first process reaps no children, a killed server would keep its process id forever.
# shellcheck disable=SC2016 # the variables are for the inner shell
spawn() {
    local name=$1
    shift
    rm -f "$services/$name.pid"
    (
        cd /
        # Enough for many connections, yet bounded: Erlang sizes tables by this limit.
        ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
        setsid sh -c 'file=$1 && shift; "$@" & echo $! >"$file"; wait' sh "$services/$name.pid" "${as[@]}" "$@" \
            </dev/null >>"$services/$name.log" 2>&1 9>&- &
    )
    until [ -s "$services/$name.pid" ]; do sleep 0.02; done
}

# Waits until a check (second argument) holds for a server, as long as that lives and at most so many seconds.
await() {
    local name=$1 ready=$2 deadline=$((SECONDS + $3)) why=''
    until "$ready"; do
        if ! running "$name"; then why="stopped"; elif [ "$SECONDS" -ge "$deadline" ]; then why="is not ready after $3 s"; fi
        if [ -n "$why" ]; then
            tail -n 20 "$services/$name.log" >&2 || true
            die "$name $why; the end of its log is above"
        fi
        sleep 0.1
    done
}

# Stops a server: asks (second argument: the signal), waits (third: seconds), then kills.
halt() {
    local name=$1 signal=$2 left=$(($3 * 10))
    if running "$name"; then
        kill -"$signal" "$(cat "$services/$name.pid")" 2>/dev/null || true
        while running "$name" && [ "$left" -gt 0 ]; do sleep 0.1 && left=$((left - 1)); done
        if running "$name"; then
            say "$name did not stop in $3 s and is killed"
            kill -KILL "$(cat "$services/$name.pid")" 2>/dev/null || true
            sleep 0.5
        fi
    fi
    rm -f "$services/$name.pid"
}

private_start() {
    if running rabbitmq && running postgres; then return; fi
    local since=$SECONDS
    say "starting RabbitMQ and Postgres under $data${account:+ as $account}"
    # RabbitMQ takes longest, so Postgres is made ready meanwhile.
    running rabbitmq || rabbitmq_start
    running postgres || postgres_start
    await postgres postgres_ready 60
    await rabbitmq rabbitmq_ready 120
    say "ready after $((SECONDS - since)) s"
}

private_stop() {
    # Nothing of theirs is kept, so they need not take their leave: a clean stop of RabbitMQ takes five seconds.
    halt rabbitmq KILL 5
    halt epmd TERM 5
    halt postgres QUIT 10
    rm -rf "${data:?}/rabbitmq" "$data/postgres"
    case $data in */voice-otp-dev.??????) rmdir "$data" ;; esac
}

# Writes standard input to a file that only that account can read.
# shellcheck disable=SC2016 # $1 is for the inner shell
put() { "${as[@]}" sh -c 'umask 077 && cat >"$1"' sh "$1"; }

# ---- RabbitMQ (3.10 to 4.x)

rabbitmq_start() {
    epmd_start
    rabbitmq_node_start rabbitmq "$data/rabbitmq" voice-otp@localhost </dev/null
}

# A port mapper of our own: the system's stays untouched, and ours can be stopped.
epmd_start() {
    running epmd || spawn epmd env ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "$epmd_port"
    await epmd epmd_ready 10
}

# Starts a node on $amqp_port and $dist_port: the name of its process, its directory, its name in Erlang; more lines of
# rabbitmq.conf on standard input. It has a management API if there is an $api_port. It has no limit of a message's size, as
# operators set it: tests send the longest messages that a broker takes by default.
rabbitmq_node_start() {
    local name=$1 home=$2 node=$3
    {
        cat <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp_port
default_user = voice_otp
default_pass = $rabbitmq_password
vm_memory_high_watermark.relative = 0.4
CONF
        [ -z "$api_port" ] || printf 'management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = %s\n' "$api_port"
        cat
    } | put "$home/rabbitmq.conf"
    if [ -n "$api_port" ]; then echo '[rabbitmq_management].'; else echo '[].'; fi | put "$home/enabled_plugins"
    put "$home/rabbitmq-env.conf" </dev/null
    put "$home/advanced.config" <<<'[].'
    # Every file that a packaged RabbitMQ would take from /etc has a stand-in here. RUNNING_UNDER_SYSTEMD makes its script
    # become the server instead of watching over it, so that the process id is the server's own.
    spawn "$name" env \
        RUNNING_UNDER_SYSTEMD=true \
        ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd_port" \
        RABBITMQ_NODENAME="$node" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$amqp_port" RABBITMQ_DIST_PORT="$dist_port" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}" \
        RABBITMQ_CONF_ENV_FILE="$home/rabbitmq-env.conf" \
        RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_CONFIG_FILES="$home/conf.d/*.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
        RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_LOGS=- \
        RABBITMQ_PID_FILE="$home/pid" \
        "$rabbitmq_bin/rabbitmq-server"
}

epmd_ready() { port_open "$epmd_port"; }

# Ready when the AMQP port is open, which it is last of all, and the management API knows our user.
rabbitmq_ready() {
    port_open "$amqp_port" && (
        exec 3<>"/dev/tcp/127.0.0.1/$api_port"
        printf 'GET /api/whoami HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n' "$(printf 'voice_otp:%s' "$rabbitmq_password" | base64 -w0)" >&3
        IFS= read -r -t 5 status <&3
        [[ $status == *" 200 "* ]]
    ) 2>/dev/null
}

# ---- Postgres (13 to 17)

postgres_start() {
    postgres_make "$data/postgres" postgres
    spawn postgres "$postgres_bin/postgres" -D "$data/postgres/data" -c listen_addresses=127.0.0.1 -c port="$postgres_port" \
        -c unix_socket_directories= -c max_connections=200
}

# Makes a server's data, with the database voice_otp, in a directory, unless they are there: the directory, and the name of
# the log.
postgres_make() {
    local home=$1 log=$services/$2.log
    [ ! -d "$home/data" ] || return 0
    put "$home/password" <<<"$postgres_password"
    # Built beside its place and moved there whole, so that an interrupted start leaves nothing half made.
    (
        cd /
        rm -rf "$home/new"
        "${as[@]}" "$postgres_bin/initdb" -D "$home/new" -U voice_otp -A scram-sha-256 --pwfile="$home/password" \
            -E UTF8 --locale=C --no-sync &&
            "${as[@]}" "$postgres_bin/postgres" --single -D "$home/new" postgres <<<'create database voice_otp'
    ) >>"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "could not make the database"
    }
    rm "$home/password"
    mv "$home/new" "$home/data"
}

# As pg_ctl knows it: the first line of this file is the process, the eighth its state.
postgres_ready() {
    local lines
    mapfile -t lines 2>/dev/null <"$data/postgres/data/postmaster.pid" || return 1
    [ "${lines[0]-}" = "$(cat "$services/postgres.pid")" ] && [[ ${lines[7]-} == ready* ]]
}
