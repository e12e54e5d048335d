#!/bin/sh
# Writes what the cluster needs and git must not have: .env with generated passwords, deploy/secrets/connections.yaml
# with the connections. A file that is there is left as it is.
set -eu
cd "$(dirname "$0")/.."
umask 077

random() {  # $1 bytes, in letters that are safe in URLs, JSON and shells
    head -c "$1" /dev/urandom | base64 | tr -d '\n=' | tr '+/' '-_'
}

if [ -e .env ]; then
    echo "==> .env is there and is kept"
else
    # Containers run as the user who can read the connections; as one of the image's own where that is root.
    user=$(id -u)
    [ "$user" -ne 0 ] || user=50000
    cat > .env.new <<END
# Written by deploy/make-env.sh; docker-compose reads it. Passwords: letters, digits, - and _ only.
COMPOSE_PROJECT_NAME=callphases
# local: with an S3 server and speechbox of its own. Leave it empty for your own bucket and key.
COMPOSE_PROFILES=local
# Pipeline files, one for each Dag.
CALLPHASES_PIPELINES_DIR=./demo/pipelines
# The UI, on 127.0.0.1 alone; its user is admin.
CALLPHASES_PORT=8080
ADMIN_PASSWORD=$(random 18)
# Who runs in Airflow's containers; deploy/secrets/connections.yaml must be readable by this user.
CALLPHASES_UID=$user
POSTGRES_PASSWORD=$(random 24)
REDIS_PASSWORD=$(random 24)
# Encrypts connections and variables in Airflow's database; lost with it, they have to be entered again.
FERNET_KEY=$(random 32)=
API_SECRET_KEY=$(random 32)
JWT_SECRET=$(random 48)
# The key that the profile local's speechbox accepts.
SPEECHBOX_API_KEY=$(random 18)
END
    mv .env.new .env
    echo "==> Wrote .env with generated passwords, readable by you alone"
fi

connections=deploy/secrets/connections.yaml
if [ ! -e "$connections" ]; then
    mkdir -p -m 755 deploy/secrets
    key=$(sed -n 's/^SPEECHBOX_API_KEY=//p' .env)
    cat > "$connections" <<END
# Airflow's connections, read by its LocalFilesystemBackend. For your own bucket and key see
# deploy/connections.example.yaml; what is here leads to the servers of the profile local.
assemblyai_default: {conn_type: assemblyai, host: "http://speechbox:8008", password: "$key"}
aws_default:
  conn_type: aws
  login: local
  password: local
  extra: '{"endpoint_url": "http://s3:5000", "region_name": "us-east-1"}'
END
    if [ "$(id -u)" -eq 0 ]; then chown "$(sed -n 's/^CALLPHASES_UID=//p' .env)" "$connections"; fi
    echo "==> Wrote $connections, for the profile local"
fi
