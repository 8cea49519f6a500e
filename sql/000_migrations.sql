-- The versions of the schema: one row for each file of sql/ that "anubisctl migrate" has applied.
--
-- A file may begin with comments of the form "-- name: words":
--   oldest daemon: N   programs built before version N can no longer use the schema once this file is applied
--   locks: a b c       tables that are locked before anything is done, in this order, where they exist

create table @extschema@.anubis_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,             -- SHA-256 of the file, in hexadecimal
    applied_at timestamptz not null default now(),
    applied_by text not null,
    oldest_daemon integer not null default 0
);
