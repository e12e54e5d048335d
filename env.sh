# Source this (`. ./env.sh`) to use the clone's own Airflow: `airflow dags test …`, `airflow backfill create …`.
# Variables that are already set keep their values. While `make up` is running, this also points at its servers.
_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"
if [ -f "$_root/.callphases/up.env" ]; then . "$_root/.callphases/up.env"; fi
export AIRFLOW_HOME="${AIRFLOW_HOME:-$_root/.callphases/airflow}"
export AIRFLOW__CORE__DAGS_FOLDER="${AIRFLOW__CORE__DAGS_FOLDER:-$_root/dags}"
export AIRFLOW__CORE__LOAD_EXAMPLES="${AIRFLOW__CORE__LOAD_EXAMPLES:-False}"
export PATH="$_root/.venv/bin:$PATH"
unset _root
