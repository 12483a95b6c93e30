# shellcheck shell=bash
# RabbitMQ and Postgres for ./dev: which servers, who uses them, where they are. Sourced by dev, which provides root, say and die.
#
# One of three modes: given (addresses from the environment), compose, private (servers of our own from installed programs).
# The last two keep what they need to know under target/services:
#   settings     the mode, ports and passwords, as shell assignments
#   env          what `./dev env` prints
#   users/       one file per process that uses the servers, and `up`; the last to leave stops them
#   *.pid *.log  private servers' process ids and logs
#   rabbitmq/ postgres/   private servers' data

# A test that breaks servers has a pair of its own, in a directory of its own.
services=${VOICE_OTP_DEV_SERVICES_DIR:-${root:?}/target/services}
case $services in /*) ;; *) die "VOICE_OTP_DEV_SERVICES_DIR must be an absolute path" ;; esac
# What stopping removes must be ours.
if [ -e "$services" ] && [ ! -e "$services/users" ] && [ -n "$(ls -A "$services" 2>/dev/null)" ]; then
    die "$services holds something else: choose a directory that isn't there yet"
fi

# shellcheck source=scripts/private.sh
source "$root/scripts/private.sh"

# Set by services_prepare (mode) and services_settle, kept in the settings file.
mode='' amqp_port='' api_port='' postgres_port='' epmd_port='' dist_port='' rabbitmq_password='' postgres_password=''
account='' # private servers, started by root: the account that they run as
data=''    # private servers: the directory that holds theirs

# The addresses come from the caller, unless they are our own, from an earlier `eval "$(./dev env)"`.
services_given() {
    case ${VOICE_OTP_DEV_SERVICES:-given} in private | compose) return 1 ;; esac
    [ -n "${VOICE_OTP_AMQP_URL:-}${VOICE_OTP_DATABASE_URL:-}" ] || return 1
    if [ -z "${VOICE_OTP_AMQP_URL:-}" ] || [ -z "${VOICE_OTP_DATABASE_URL:-}" ]; then
        die "set both VOICE_OTP_AMQP_URL and VOICE_OTP_DATABASE_URL, or neither"
    fi
}

# Chooses the mode, and installs what it needs and may.
services_prepare() {
    if services_given; then
        mode=given
    elif [ -f "$services/settings" ]; then
        services_load
    elif engine_answers; then
        mode=compose
    else
        mode=private
        [ -d /proc/self ] || die "no Docker engine answers, and private servers need Linux: start Docker, or set" \
            "VOICE_OTP_AMQP_URL and VOICE_OTP_DATABASE_URL"
    fi
    [ "$mode" != private ] || find_servers
}

# Starts what is not running yet and notes this process as a user of it.
services_hold() {
    [ "$mode" != given ] || return 0
    services_lock
    mkdir -p "$services/users" 2>/dev/null || die "cannot make target/services"
    : >"$services/users/$$" || die "cannot write target/services: is it another account's?"
    # Another process may have come first, or the last user may have left meanwhile.
    if [ -f "$services/settings" ]; then services_load; else services_settle; fi
    if [ "$mode" = compose ]; then compose_start; else private_start; fi
    services_write_env
    services_unlock
}

# Leaves the servers running after this process.
services_keep() { : >"$services/users/up"; }

# Stops the servers if this process was the last to use them.
services_leave() {
    [ -e "$services/users/$$" ] || return 0
    trap '' INT TERM HUP # the second Ctrl-C must not interrupt this
    services_lock
    rm -f "$services/users/$$"
    services_in_use || services_stop
    services_unlock
}

services_in_use() {
    local user
    for user in "$services/users"/*; do
        [ "${user##*/}" != up ] || return 0
        # A user that was killed has left its file behind.
        if grep -qs dev "/proc/${user##*/}/cmdline"; then return 0; fi
    done
    return 1
}

services_down() {
    [ -d "$services" ] || { say "nothing is up"; return; }
    services_lock
    services_stop
    services_unlock
    say "RabbitMQ and Postgres are down"
}

services_stop() {
    if [ -f "$services/settings" ]; then
        services_load
        if [ "$mode" = compose ]; then compose down -v --timeout 10 >&2; else private_stop; fi
    fi
    rm -rf "$services"
}

# Prints the export lines; fails if nothing is up.
services_env() {
    if services_given; then
        export_line VOICE_OTP_AMQP_URL "$VOICE_OTP_AMQP_URL"
        export_line VOICE_OTP_DATABASE_URL "$VOICE_OTP_DATABASE_URL"
        export_line VOICE_OTP_KEYS "$(dev_keys)"
        [ -z "${VOICE_OTP_TEST_RABBITMQ_API:-}" ] || export_line VOICE_OTP_TEST_RABBITMQ_API "$VOICE_OTP_TEST_RABBITMQ_API"
        export_line VOICE_OTP_DEV_SERVICES given
        return
    fi
    [ -f "$services/env" ] || return 1
    services_load
    [ "$mode" = compose ] || { running rabbitmq && running postgres; } || return 1
    cat "$services/env"
}

services_write_env() {
    (
        umask 077
        {
            export_line VOICE_OTP_AMQP_URL "amqp://voice_otp:$rabbitmq_password@127.0.0.1:$amqp_port/%2f"
            export_line VOICE_OTP_DATABASE_URL "postgres://voice_otp:$postgres_password@127.0.0.1:$postgres_port/voice_otp"
            export_line VOICE_OTP_KEYS "$(dev_keys)"
            export_line VOICE_OTP_TEST_RABBITMQ_API "http://voice_otp:$rabbitmq_password@127.0.0.1:$api_port"
            export_line VOICE_OTP_DEV_SERVICES "$mode"
        } >"$services/env.new"
    )
    mv "$services/env.new" "$services/env"
}

export_line() { printf "export %s='%s'\n" "$1" "${2//\'/\'\\\'\'}"; }

# The key that seals secrets in development: made once, kept until `cargo clean`, for a given database outlives the servers.
dev_keys() {
    local file=$root/target/dev-keys
    if [ -n "${VOICE_OTP_KEYS:-}" ]; then
        echo "$VOICE_OTP_KEYS"
    else
        [ -s "$file" ] || (mkdir -p "$root/target" && umask 077 && echo "dev:$(head -c 32 /dev/urandom | base64)" >"$file")
        cat "$file"
    fi
}

# Decides ports, passwords and places, once for the life of these servers.
services_settle() {
    local chosen=()
    choose_ports 5
    if [ "$mode" = private ]; then
        account=$(private_account)
        private_places
    fi
    (
        umask 077
        cat >"$services/settings.new" <<SETTINGS
mode=$mode
amqp_port=${chosen[0]} api_port=${chosen[1]} postgres_port=${chosen[2]} epmd_port=${chosen[3]} dist_port=${chosen[4]}
rabbitmq_password=$(random_hex) postgres_password=$(random_hex)
account=$account data=$data
SETTINGS
    )
    mv "$services/settings.new" "$services/settings"
    services_load
}

# Sets `chosen` to so many ports that are free.
choose_ports() {
    local port
    chosen=()
    until [ ${#chosen[@]} -eq "$1" ]; do
        port=$((20000 + RANDOM % 12000)) # below the ports that the system hands to outgoing connections
        case " ${chosen[*]-} " in *" $port "*) continue ;; esac
        port_open "$port" || chosen+=("$port")
    done
}

services_load() {
    # shellcheck disable=SC1091 # written by services_settle
    source "$services/settings"
    set_as
}

random_hex() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
port_open() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# One process at a time starts or stops servers. The lock lies beside target/services, which stopping removes.
services_lock() {
    command -v flock >/dev/null || return 0
    mkdir -p "$(dirname "$services")"
    exec 9>"$(dirname "$services")/.$(basename "$services").lock"
    flock -w 900 9 || die "another ./dev has been starting or stopping servers for 15 minutes"
}
services_unlock() { exec 9>&-; }

# ---- Breaking servers, for tests

# Kills a server as a crash would. services_hold starts it again, with its data.
services_break() {
    services_load
    if [ "$mode" = compose ]; then compose kill --signal KILL "$1" >&2; else halt "$1" KILL 5; fi
}

# Makes RabbitMQ think that it is short of memory, or not any more: while it is, it reads nothing from publishers.
services_alarm() {
    local watermark
    case $1 in
        on) watermark=(absolute 1) ;;
        off) watermark=(0.4) ;;
        *) die "alarm on, or alarm off" ;;
    esac
    services_rabbitmqctl -q set_vm_memory_high_watermark "${watermark[@]}" >&2
}

# Runs rabbitmqctl on the servers.
services_rabbitmqctl() {
    services_load
    if [ "$mode" = compose ]; then
        compose exec -T rabbitmq rabbitmqctl "$@"
    else
        find_rabbitmq || die "no rabbitmqctl was found"
        "${as[@]}" env ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd_port" RABBITMQ_CONF_ENV_FILE="$data/rabbitmq/rabbitmq-env.conf" \
            "$rabbitmq_bin/rabbitmqctl" -n voice-otp@localhost "$@"
    fi
}

# ---- Docker Compose

limited() { if command -v timeout >/dev/null; then timeout "$@"; else shift && "$@"; fi; }

engine_answers() {
    command -v docker >/dev/null && limited 10 docker compose version >/dev/null 2>&1 && limited 10 docker ps -q >/dev/null 2>&1
}

# A project per directory, so that two checkouts never replace each other's servers.
compose() {
    VOICE_OTP_RABBITMQ_PORT=$amqp_port VOICE_OTP_RABBITMQ_API_PORT=$api_port VOICE_OTP_POSTGRES_PORT=$postgres_port \
        VOICE_OTP_RABBITMQ_PASSWORD=$rabbitmq_password VOICE_OTP_POSTGRES_PASSWORD=$postgres_password \
        docker compose -p "voice-otp-dev-$(cksum <<<"$services" | cut -d' ' -f1)" -f "$root/docker-compose.yml" "$@" 9>&-
}

compose_start() {
    compose up -d --wait rabbitmq postgres >&2 && return
    compose logs --tail 30 rabbitmq postgres >&2 || true
    die "Docker Compose could not start RabbitMQ and Postgres"
}
