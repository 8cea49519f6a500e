-- Whose database this is: "anubisctl installation".

-- name: installation_show :once
-- One row: the installation, since when, whether it was last used elsewhere, the database, its enabled integrations.
select namespace::text, created_at, installation_is_elsewhere(), current_database()::text,
       (select count(*) from integrations where enabled)
  from installation

-- name: installation_names :once
-- One row: whether it was last used elsewhere, the name that events get, the name in the table.
select installation_is_elsewhere(), installation_name()::text, namespace::text from installation

-- name: installation_settle :once
-- Here it is; how many integrations were disabled.
-- $1 boolean: a copy, with a name of its own
select installation_settle($1)
