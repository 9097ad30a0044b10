#!/bin/sh
# Runs once, when the volume is new: a role and a database for the ledger, and one of each for Prefect.
# psql reads the passwords from the environment, so that no command line shows them.
set -eu

psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv ledger_password DB_LEDGER_PASSWORD
\getenv prefect_password DB_PREFECT_PASSWORD
CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';
CREATE DATABASE ledger OWNER ledger;
REVOKE ALL ON DATABASE ledger FROM PUBLIC;
CREATE ROLE prefect LOGIN PASSWORD :'prefect_password';
CREATE DATABASE prefect OWNER prefect;
REVOKE ALL ON DATABASE prefect FROM PUBLIC;
SQL
