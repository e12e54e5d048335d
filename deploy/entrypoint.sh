#!/bin/sh
# Runs what it is given. It is here because the official Helm chart's probes call /entrypoint.
exec "$@"
