#!/bin/sh
# Makes the passwords of the stack, once.
#
# Takes two directories, the recorder's and Grafana's; gives each the files that it needs, readable by
# its own user only. Never prints a password, and never changes one that exists: every run but the
# first does nothing. Needs root with the capabilities CHOWN and DAC_READ_SEARCH, and no network.
#
# usage: passwords.sh RECORDER_DIRECTORY GRAFANA_DIRECTORY
set -eu
umask 077

recorder_uid=10001
grafana_uid=472
recorder_directory=$1
grafana_directory=$2

# keep UID FILE: standard input becomes FILE, whole or not at all, for UID alone.
keep() {
    rm -f "$2.new"
    cat > "$2.new"
    if [ "$(wc -c < "$2.new")" -lt 32 ]; then
        echo "passwords: $2 would be too short; remove what is damaged in the password volumes" >&2
        exit 1
    fi
    chmod 0400 "$2.new"
    chown "$1:$1" "$2.new"
    sync
    mv "$2.new" "$2"
}

# Letters and digits only: Grafana expands "$" in what it reads, and InfluxQL quotes with "'".
password() {
    LC_ALL=C tr -dc 'A-Za-z0-9' < /dev/urandom | head -c 40
    echo
}

[ -s "$recorder_directory/influxdb-admin" ] || password | keep "$recorder_uid" "$recorder_directory/influxdb-admin"
[ -s "$recorder_directory/influxdb-reader" ] || password | keep "$recorder_uid" "$recorder_directory/influxdb-reader"
[ -s "$grafana_directory/influxdb-reader" ] || keep "$grafana_uid" "$grafana_directory/influxdb-reader" < "$recorder_directory/influxdb-reader"
[ -s "$grafana_directory/grafana-admin" ] || password | keep "$grafana_uid" "$grafana_directory/grafana-admin"
