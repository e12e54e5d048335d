#!/bin/sh
# Writes the cluster's files that must not be in git: .env with generated passwords, and deploy/secrets/connections.yaml
# with the connections. Existing files are not changed.
set -eu
cd "$(dirname "$0")/.."
umask 077

random() {  # $1 random bytes, encoded in characters that are safe in URLs, JSON and shells
    head -c "$1" /dev/urandom | base64 | tr -d '\n=' | tr '+/' '-_'
}

if [ -e .env ]; then
    echo "==> .env exists and is kept"
else
    # Containers run as the user who can read the connections; if that is root, as the image's own user.
    user=$(id -u)
    [ "$user" -ne 0 ] || user=50000
    cat > .env.new <<END
# Written by deploy/make-env.sh; read by docker-compose. Passwords contain only letters, digits, - and _.
COMPOSE_PROJECT_NAME=callphases
# local adds an S3 server and speechbox. Leave it empty for your own bucket and key.
COMPOSE_PROFILES=local
# The folder of pipeline files, one per Dag.
CALLPHASES_PIPELINES_DIR=./demo/pipelines
# The UI, on 127.0.0.1 only; the user is admin.
CALLPHASES_PORT=8080
ADMIN_PASSWORD=$(random 18)
# The user ID in Airflow's containers; this user must be able to read deploy/secrets/connections.yaml.
CALLPHASES_UID=$user
POSTGRES_PASSWORD=$(random 24)
REDIS_PASSWORD=$(random 24)
# Encrypts connections and variables in Airflow's database; if it is lost, they have to be entered again.
FERNET_KEY=$(random 32)=
API_SECRET_KEY=$(random 32)
JWT_SECRET=$(random 48)
# The key that speechbox of the profile local accepts.
SPEECHBOX_API_KEY=$(random 18)
END
    mv .env.new .env
    echo "==> Wrote .env with generated passwords, readable only by you"
fi

connections=deploy/secrets/connections.yaml
if [ ! -e "$connections" ]; then
    mkdir -p -m 755 deploy/secrets
    key=$(sed -n 's/^SPEECHBOX_API_KEY=//p' .env)
    cat > "$connections" <<END
# Airflow's connections, read by its LocalFilesystemBackend. These are for the servers of the profile local; for your own
# bucket and key see deploy/connections.example.yaml.
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
