#!/bin/sh
# Runs its arguments. It exists because the official Helm chart's probes call /entrypoint.
exec "$@"
