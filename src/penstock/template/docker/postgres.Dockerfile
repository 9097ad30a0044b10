# PostgreSQL with the script that makes the two databases. Not a bind mount: there the host's umask decides who reads it.
FROM postgres:17
COPY --chmod=0755 postgres-init.sh /docker-entrypoint-initdb.d/10-databases.sh
USER postgres
