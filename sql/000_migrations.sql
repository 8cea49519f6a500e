-- Which files of sql/ "anubisctl migrate" has applied: numbered steps, each once, and repeatable files in the content that
-- they had last.

create table @extschema@.anubis_migrations (
    version integer primary key,
    name text not null,
    checksum text not null,             -- SHA-256 of the file, in hexadecimal
    applied_at timestamptz not null default now(),
    applied_by text not null,
    oldest_daemon integer not null default 0,
    -- In the row of version 0: each function and trigger of the repeatable files, its file, and a checksum of how the file made it.
    made jsonb
);

create table @extschema@.anubis_repeatables (
    name text primary key,
    checksum text not null,
    applied_at timestamptz not null default now(),
    applied_by text not null
);
