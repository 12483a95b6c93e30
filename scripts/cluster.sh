# shellcheck shell=bash
# ./dev cluster: three RabbitMQ nodes, and a Postgres with a synchronous standby and a watchdog that promotes it, from the
# installed programs, on loopback. Sourced by dev; docs/cluster.md describes it.
#
# It keeps under target/cluster what scripts/services.sh keeps under target/services, and:
#   primary      the name of the Postgres that is the primary
#   sync         the name of the standby without which no commit returns, or `none`
#   fencing.log  what happened to the former primaries that woke up

# shellcheck source=scripts/cluster-postgres.sh
source "$root/scripts/cluster-postgres.sh"

cluster_use() {
    services=${VOICE_OTP_DEV_CLUSTER_DIR:-$root/target/cluster}
    case $services in /*) ;; *) die "VOICE_OTP_DEV_CLUSTER_DIR must be an absolute path" ;; esac
    if [ -e "$services" ] && [ ! -e "$services/fencing.log" ] && [ -n "$(ls -A "$services" 2>/dev/null)" ]; then
        die "$services holds something else: choose a directory that isn't there yet"
    fi
    [ ! -f "$services/settings" ] || services_load
}

cluster_needs() { [ -f "$services/settings" ] || die "the cluster is not up: ./dev cluster up"; }

# Decides ports, passwords and places, once for the life of the cluster.
cluster_settle() {
    local chosen=()
    choose_ports 9
    account=$(private_account)
    private_places
    (
        umask 077
        cat >"$services/settings.new" <<SETTINGS
mode=private
epmd_port=${chosen[0]} amqp_ports=(${chosen[*]:1:3}) dist_ports=(${chosen[*]:4:3}) postgres_ports=(${chosen[*]:7:2})
rabbitmq_password=$(random_hex) postgres_password=$(random_hex)
account=$account data=$data
SETTINGS
    )
    mv "$services/settings.new" "$services/settings"
    services_load
}

# Starts what isn't running, and waits until the cluster is healthy.
cluster_up() {
    local n since=$SECONDS
    [ -d /proc/self ] || die "the cluster needs Linux"
    find_servers
    services_lock
    mkdir -p "$services"
    : >>"$services/fencing.log"
    [ -f "$services/settings" ] || cluster_settle
    say "starting the cluster under $data${account:+ as $account}"
    pair_start
    epmd_start
    # The first node starts alone, so that the others have a cluster to join.
    for n in 1 2 3; do
        running "rabbitmq-$n" || node_start "$n"
        [ "$n" -ne 1 ] || await rabbitmq-1 node_ready_1 180
    done
    await rabbitmq-2 node_ready_2 180
    await rabbitmq-3 node_ready_3 180
    cluster_vhost /
    cluster_wait 180
    services_unlock
    say "the cluster is up after $((SECONDS - since)) s"
}

cluster_down() {
    local name
    [ -d "$services" ] || { say "the cluster is not up"; return; }
    services_lock
    if [ -f "$services/settings" ]; then
        # What is frozen is continued, else it wouldn't stop.
        halt watchdog TERM 90
        for name in rabbitmq-1 rabbitmq-2 rabbitmq-3 postgres-a postgres-b; do
            ! running "$name" || signal_all "$name" CONT
        done
        for name in rabbitmq-1 rabbitmq-2 rabbitmq-3; do halt "$name" KILL 5; done
        halt epmd TERM 5
        for name in postgres-a postgres-b; do halt "$name" QUIT 20; done
        rm -rf "${data:?}/rabbitmq" "$data/postgres"
        case $data in */voice-otp-dev.??????) rmdir "$data" ;; esac
    fi
    rm -rf "$services"
    services_unlock
    say "the cluster is down"
}

# Prints export lines for clients. The AMQP URL is that of the first node.
cluster_env() {
    export_line VOICE_OTP_AMQP_URL "amqp://voice_otp:$rabbitmq_password@127.0.0.1:${amqp_ports[0]}/%2f"
    export_line VOICE_OTP_DATABASE_URL "$(pair_url)"
    export_line VOICE_OTP_KEYS "$(dev_keys)"
    export_line VOICE_OTP_DEV_SERVICES given
}

cluster_status() {
    local name
    for name in rabbitmq-1 rabbitmq-2 rabbitmq-3 postgres-a postgres-b watchdog; do
        if ! running "$name"; then echo "$name down"; elif frozen "$name"; then echo "$name frozen"; else echo "$name up"; fi
    done
    echo "primary $(pair_primary), synchronous standby $(pair_sync)"
}

# ---- RabbitMQ

node_name() { echo "voice-otp-$1@localhost"; }

node_start() {
    local n=$1 amqp_port=${amqp_ports[$1 - 1]} dist_port=${dist_ports[$1 - 1]} api_port=''
    "${as[@]}" mkdir -p "$data/rabbitmq/$n"
    # The nodes share a cookie.
    [ "$n" -ne 1 ] || [ -e "$data/rabbitmq/.erlang.cookie" ] || random_hex | put "$data/rabbitmq/.erlang.cookie"
    # A node that is cut off from the others stops serving until it sees them again.
    rabbitmq_node_start "rabbitmq-$n" "$data/rabbitmq/$n" "$(node_name "$n")" <<CONF
cluster_partition_handling = pause_minority
cluster_formation.peer_discovery_backend = classic_config
cluster_formation.classic_config.nodes.1 = $(node_name 1)
cluster_formation.classic_config.nodes.2 = $(node_name 2)
cluster_formation.classic_config.nodes.3 = $(node_name 3)
CONF
}

node_ready_1() { port_open "${amqp_ports[0]}"; }
node_ready_2() { port_open "${amqp_ports[1]}"; }
node_ready_3() { port_open "${amqp_ports[2]}"; }

# Runs a program of RabbitMQ's on a node: the program, the node's number, its arguments.
node_run() {
    local program=$1 n=$2
    shift 2
    timeout 30 "${as[@]}" env ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT="$epmd_port" \
        RABBITMQ_CONF_ENV_FILE="$data/rabbitmq/$n/rabbitmq-env.conf" \
        "$rabbitmq_bin/$program" -q -n "$(node_name "$n")" "$@" </dev/null
}

# Makes a vhost, unless it is there: ours may use it, and the leaders of its queues are spread over the nodes.
cluster_vhost() {
    [ "$1" = / ] || node_run rabbitmqctl 1 add_vhost "$1" >&2
    node_run rabbitmqctl 1 set_permissions -p "$1" voice_otp '.*' '.*' '.*' >&2
    node_run rabbitmqctl 1 set_policy -p "$1" --apply-to queues leaders '^voice-otp\.' '{"queue-leader-locator":"balanced"}' >&2
}

# Prints the node that leads the most queues of a vhost, as the nodes have noted it: busy queues answer slowly.
cluster_leader() {
    local n leaders
    for n in 1 2 3 1 2 3 1 2 3; do
        if ! running "rabbitmq-$n" || frozen "rabbitmq-$n"; then continue; fi
        leaders=$(node_run rabbitmqctl "$n" eval \
            "[case amqqueue:get_pid(Queue) of {_, Node} -> Node; Pid -> node(Pid) end || Queue <- rabbit_amqqueue:list(<<\"$1\">>)].") || { sleep 1; continue; }
        leaders=$(grep -o 'voice-otp-[123]' <<<"$leaders" | sort | uniq -c | sort -rn || true)
        read -r _ leaders <<<"${leaders:-0 voice-otp-1}"
        echo "rabbitmq-${leaders##*-}"
        return
    done
    die "no node answers"
}

# Cuts a node's connections to the others, which fail to connect again: it doesn't know their cookie any more. Needs no
# privileges, and clients still reach the node.
node_cut() { node_for_others "$1" "erlang:set_cookie(Node, cut), erlang:disconnect_node(Node)"; }
node_heal() { node_for_others "$1" "erlang:set_cookie(Node, erlang:get_cookie())"; }

# Evaluates an Erlang expression on a node, for each of the others (Node).
node_for_others() {
    local n others='' left=5
    for n in 1 2 3; do [ "$n" = "$1" ] || others+=${others:+,}\'$(node_name "$n")\'; done
    # In a process of its own, since a node that loses the others stops its applications and may not answer any more.
    until node_run rabbitmqctl "$1" eval \
        "spawn(fun() -> timer:sleep(500), [begin $2 end || Node <- [$others]] end)." >/dev/null; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || die "rabbitmq-$1 does not answer"
        sleep 1
    done
}

# ---- Breaking and mending

frozen() { grep -qs '^State:[[:space:]]*T' "/proc/$(cat "$services/$1.pid")/status"; }

# Sends a signal to a server and all its processes.
signal_all() {
    local pid
    pid=$(cat "$services/$1.pid")
    # shellcheck disable=SC2046 # one argument per process id is meant
    kill -"$2" "$pid" $(descendants "$pid") 2>/dev/null || true
}

cluster_kill() { signal_all "$1" KILL; }
cluster_freeze() { signal_all "$1" STOP; }
cluster_thaw() { signal_all "$1" CONT; }

# Waits until the cluster is healthy: every node serves clients, and the standby is synchronous.
cluster_wait() {
    local deadline=$((SECONDS + $1)) problem
    while problem=$(cluster_problem); [ -n "$problem" ]; do
        [ "$SECONDS" -lt "$deadline" ] || die "the cluster is not healthy after $1 s: $problem"
        sleep 0.5
    done
}
# Prints what is wrong with the cluster, if anything.
cluster_problem() {
    local name
    for name in rabbitmq-1 rabbitmq-2 rabbitmq-3 postgres-a postgres-b watchdog; do
        if ! running "$name"; then echo "$name is down" && return; fi
        if frozen "$name"; then echo "$name is frozen" && return; fi
    done
    for name in 1 2 3; do
        "node_ready_$name" || { echo "rabbitmq-$name serves no clients" && return; }
    done
    [ "$(pair_sync)" != none ] || { echo "no standby is synchronous" && return; }
}

cmd_cluster() {
    local verb=${1:-}
    [ $# -eq 0 ] || shift
    cluster_use
    case $verb in
        up)
            cluster_up
            say "eval \"\$(./dev cluster env)\", later ./dev cluster down"
            ;;
        down) cluster_down ;;
        chaos) cluster_chaos "$@" ;;
        *)
            cluster_needs
            find_servers
            cluster_verb "$verb" "$@"
            ;;
    esac
}

cluster_verb() {
    local verb=$1 name=${2:-}
    case $verb:$name in
        env: | status: | primary: | leader:* | vhost:?* | wait: | watch:*) ;;
        kill:rabbitmq-[123] | freeze:rabbitmq-[123] | thaw:rabbitmq-[123] | start:rabbitmq-[123] | cut:rabbitmq-[123] | heal:rabbitmq-[123]) ;;
        kill:postgres-[ab] | freeze:postgres-[ab] | thaw:postgres-[ab]) ;;
        *) usage >&2 && exit 2 ;;
    esac
    case $verb in
        env) cluster_env ;;
        status) cluster_status ;;
        primary) pair_primary ;;
        leader) cluster_leader "${name:-/}" ;;
        vhost) cluster_vhost "$name" ;;
        wait) cluster_wait 180 ;;
        watch) pair_watch ;;
        kill) cluster_kill "$name" ;;
        freeze) cluster_freeze "$name" ;;
        thaw) cluster_thaw "$name" ;;
        start)
            running "$name" || node_start "${name#rabbitmq-}"
            await "$name" "node_ready_${name#rabbitmq-}" 180
            ;;
        cut) node_cut "${name#rabbitmq-}" ;;
        heal) node_heal "${name#rabbitmq-}" ;;
    esac
}

# Runs workers under load while servers and workers are broken, and compares what came of it. VOICE_OTP_PROFILE chooses how the
# programs are built.
cluster_chaos() {
    local profile=${VOICE_OTP_PROFILE:-release} exports
    need_build_tools
    find_servers
    # In the profile of the tests everything, as they build it, else the two would take turns at building.
    if [ "$profile" = dev ]; then cargo build --locked; else cargo build --profile "$profile" --locked -p voice-otp-worker -p voice-otp-bench; fi
    trap 'cluster_leave' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ -f "$services/settings" ]; then
        cluster_up
    else
        cluster_started=yes
        cluster_up
    fi
    exports=$(cluster_env)
    eval "$exports"
    case $profile in dev) profile=debug ;; esac
    rm -rf "$services-logs"
    mkdir -p "$services-logs"
    VOICE_OTP_CLUSTER_NODES=$(printf ',127.0.0.1:%s' "${amqp_ports[@]}") VOICE_OTP_CLUSTER_DEV=$root/dev \
        VOICE_OTP_CLUSTER_DIR=$services VOICE_OTP_CLUSTER_LOGS=$services-logs \
        run "$(target_directory)/$profile/voice-otp-bench" cluster "$@"
}

cluster_started=''
cluster_leave() {
    trap '' INT TERM HUP
    cp "$services"/*.log "$services-logs/" 2>/dev/null || true
    say "logs: $services-logs"
    [ -z "$cluster_started" ] || cluster_down
}
