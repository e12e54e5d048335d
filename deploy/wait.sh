#!/bin/sh
# Waits until every container of the cluster is healthy, and prints what to do next; after a timeout, prints those that are not.
# COMPOSE: the command, `docker compose` or `docker-compose`.
set -eu
cd "$(dirname "$0")/.."
limit_s=300
# Read from .env, not from the shell, which may have another value.
port=$(sed -n 's/^CALLPHASES_PORT=//p' .env)
began=$(date +%s)

unwell() {  # "name state" of each container that is not healthy; one that exited with 0 counts as healthy
    # shellcheck disable=SC2086
    docker inspect --format '{{.Name}} {{if eq .State.Status "exited"}}exit-{{.State.ExitCode}}{{else if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}' \
        $($COMPOSE ps -q) | sed 's,^/,,' | grep -Ev ' (healthy|exit-0)$' || true
}

while waiting=$(unwell); [ -n "$waiting" ]; do
    if [ $(($(date +%s) - began)) -gt $limit_s ]; then
        echo "Not healthy after $limit_s s; see the logs with: $COMPOSE logs NAME" >&2
        echo "$waiting" >&2
        exit 1
    fi
    sleep 2
done
cat <<END
==> Healthy.
    Airflow   http://127.0.0.1:${port:-8080}, user admin, password: ADMIN_PASSWORD in .env

    Next:
      make cluster-demo     run two days of sample calls on the workers (profile local)
      docs/cluster.md       your own bucket and key, more workers, upgrades, backups
      make cluster-down     stop the cluster; its data stays
END
