#!/bin/sh
# Images for up.py where there is no registry: Debian, from its package archive, in place
# of the official Python and PostgreSQL images. They are made from the same Debian release
# and take the same variables, but they are not those images: what is tested with them is
# our own image and how the services work together.
#
#   sudo sh tests/project/compose/stand_ins.sh      needs debootstrap and Docker
#   MIRROR=...                              Debian's package archive
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase \
    --include=ca-certificates,libgomp1,libpython3.11,postgresql,python3,python3-venv \
    bookworm "$folder/root" "${MIRROR:-http://deb.debian.org/debian}" > "$folder/log" ||
    { tail "$folder/log"; exit 1; }
ln -s python3 "$folder/root/usr/bin/python"
# Whoever this machine trusts, on the way to Python's packages.
cp -L /etc/ssl/certs/ca-certificates.crt "$folder/root/etc/ssl/certs/"
tar -C "$folder/root" -c . | docker import \
    --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    - chirpwatch-test-python
mkdir "$folder/postgres"
cat > "$folder/postgres/entrypoint" <<'END'
#!/bin/sh
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
    chown postgres "$data" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$data/PG_VERSION" ]; then
    initdb --pgdata="$data" --username="$POSTGRES_USER" \
        --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 --auth-local=trust \
        --encoding=UTF8 --locale=C.UTF-8
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    pg_ctl --pgdata="$data" --options="-c listen_addresses=" --wait start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB" 2>/dev/null ||
        [ "$POSTGRES_DB" = "$POSTGRES_USER" ]
    pg_ctl --pgdata="$data" --wait stop
fi
exec postgres -D "$data" -c "listen_addresses=*"
END
chmod 755 "$folder/postgres/entrypoint"
cat > "$folder/postgres/Dockerfile" <<'END'
FROM chirpwatch-test-python
COPY entrypoint /usr/local/bin/entrypoint
ENTRYPOINT ["entrypoint"]
END
docker build --quiet --tag=chirpwatch-test-postgres "$folder/postgres"
