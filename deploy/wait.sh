#!/bin/sh
# Waits until every container of the cluster is healthy, or says which one is not; then says what to do next.
# COMPOSE: the command, `docker compose` or `docker-compose`.
set -eu
cd "$(dirname "$0")/.."
limit_s=300
# Once for all: this must not read a variable of the shell that .env means to set.
port=$(sed -n 's/^CALLPHASES_PORT=//p' .env)
began=$(date +%s)

unwell() {  # "name state" of each container that is not healthy; one that has done its work and ended is
    # shellcheck disable=SC2086
    docker inspect --format '{{.Name}} {{if eq .State.Status "exited"}}exit-{{.State.ExitCode}}{{else if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' \
        $($COMPOSE ps -q) | sed 's,^/,,' | grep -Ev ' (healthy|exit-0)$' || true
}

while waiting=$(unwell); [ -n "$waiting" ]; do
    if [ $(($(date +%s) - began)) -gt $limit_s ]; then
        echo "Not healthy after $limit_s s; the log of each: $COMPOSE logs NAME" >&2
        echo "$waiting" >&2
        exit 1
    fi
    sleep 2
done
cat <<END
==> Healthy.
    Airflow   http://127.0.0.1:${port:-8080}, user admin, password: ADMIN_PASSWORD in .env

    Next:
      make cluster-demo     two days of sample calls through the workers (profile local)
      docs/cluster.md       your own bucket and key, more workers, upgrades, backups
      make cluster-down     stop it; what it has stays
END
