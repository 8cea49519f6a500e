"""A Rails application's tables and rows, as the guide's models make them, and their adoption."""
from .anubis import Ctl

# The guide's models as ActiveRecord makes their tables; {json} is the type of payload, request and response.
RAILS = """
create table schema_migrations (version character varying not null primary key);
create table integrations (id bigserial primary key, name character varying, type character varying,
    endpoint_url character varying, auth_token character varying, successful_sends integer default 0 not null,
    failed_sends integer default 0 not null, created_at timestamp(6) without time zone not null,
    updated_at timestamp(6) without time zone not null);
create table integration_filters (id bigserial primary key, integration_id bigint not null, name character varying,
    created_at timestamp(6) without time zone not null, updated_at timestamp(6) without time zone not null);
create table subscriptions (id bigserial primary key, integration_id bigint not null, integration_filter_id bigint not null,
    order_id bigint, origin character varying, cpf character varying, payload {json},
    status character varying default 'pending' not null, sent_at timestamp(6) without time zone,
    scheduled_to timestamp(6) without time zone, created_at timestamp(6) without time zone not null,
    updated_at timestamp(6) without time zone not null);
create table subscription_events (id bigserial primary key, subscription_id bigint not null, status character varying,
    operation_name character varying, request {json}, response {json}, error_message text,
    created_at timestamp(6) without time zone not null, updated_at timestamp(6) without time zone not null);
create index index_subscriptions_on_integration_id on subscriptions (integration_id);
create index index_subscriptions_on_status on subscriptions (status);
create index index_subscription_events_on_subscription_id on subscription_events (subscription_id);
alter table integration_filters add constraint fk_rails_1 foreign key (integration_id) references integrations (id);
alter table subscriptions add constraint fk_rails_2 foreign key (integration_id) references integrations (id);
alter table subscriptions add constraint fk_rails_3 foreign key (integration_filter_id) references integration_filters (id);
alter table subscription_events add constraint fk_rails_4 foreign key (subscription_id) references subscriptions (id);
"""
RAILS_ROWS = """
insert into integrations (name, type, endpoint_url, auth_token, successful_sends, failed_sends, created_at, updated_at)
    select 'Instituição ' || n, null, 'https://api' || n || '.example.edu.br/inscricoes', 'token', n * 10, n,
           '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05.678901' from generate_series(1, 5) n;
insert into integration_filters (integration_id, name, created_at, updated_at)
    select id, 'todos', created_at, updated_at from integrations;
insert into subscriptions (integration_id, integration_filter_id, order_id, origin, cpf, payload, status, sent_at, scheduled_to,
                           created_at, updated_at)
    select 1 + n % 5, 1 + n % 5, n, 'site', lpad(n::text, 11, '0'),
           '{"aluno": {"nome": "José"}, "n": 9007199254740993.10}'::{json},
           ('{pending,processing,sent,failed,retry}'::text[])[1 + n % 5],
           case when n % 5 = 2 then '2026-02-03 04:05:06.789012'::timestamp end,
           case when n % 7 = 0 then '2026-03-04 05:06:07'::timestamp end,
           '2026-01-02 03:04:05.678901'::timestamp + n * interval '1 s', '2026-01-02 03:04:05'::timestamp + n * interval '1 s'
      from generate_series(1, {rows}) n;
insert into subscription_events (subscription_id, status, operation_name, request, response, error_message,
                                 created_at, updated_at)
    select id, case status when 'sent' then 'success' else 'error' end, 'send_to_institution', payload,
           case status when 'sent' then '{"ok": true}'::{json} end, case status when 'failed' then 'HTTP 500: erro' end,
           updated_at, updated_at
      from subscriptions where status in ('sent', 'failed');
"""
RAILS_COLUMNS = {
    "integrations": "id, name, type, endpoint_url, auth_token, successful_sends, failed_sends, created_at, updated_at",
    "integration_filters": "id, integration_id, name, created_at, updated_at",
    "subscriptions": "id, integration_id, integration_filter_id, order_id, origin, cpf, payload, status, sent_at, "
                     "scheduled_to, created_at, updated_at",
    "subscription_events": "id, subscription_id, status, operation_name, request, response, error_message, created_at, "
                           "updated_at",
}


def rails(database, json="jsonb", rows=200):
    database.query(RAILS.replace("{json}", json))
    database.query(RAILS_ROWS.replace("{json}", json).replace("{rows}", str(rows)))


def adopt(database, *arguments):
    return Ctl({"database": {"schema": "public"}}, database=database)("migrate", *arguments)


def fingerprints(database):
    """{table: a hash over all the application's own columns of all rows, and their types}"""
    found = {}
    for table, columns in RAILS_COLUMNS.items():
        found[table] = database.query(
            f"select count(*), md5(string_agg(row({columns})::text, ',' order by id)) from public.{table}")
        found[table + " types"] = database.query(
            "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute where attrelid = %s::regclass "
            "and attname = any (string_to_array(%s, ', ')) and not attisdropped order by 1", (f"public.{table}", columns))
    return found
