"""The web application's side of the database: integrations and subscriptions, and what became of them."""
import collections
import json

from psycopg2.extras import execute_values

from .people import People
from .processes import wait_for


class Application:
    def __init__(self, database, schema="anubis", seed=1):
        self.database = database
        self.schema = schema
        self.people = People(seed)

    def query(self, sql, arguments=None):
        """SQL in which {s} is the schema."""
        return self.database.query(sql.replace("{s}", self.schema), arguments)

    def value(self, sql, arguments=None):
        return self.query(sql, arguments)[0][0]

    def integration(self, endpoint_url, name=None, **columns):
        """Its id."""
        columns = {"name": name or endpoint_url.rsplit("/", 1)[-1] or "institution", "auth_token": "harness-token",
                   "endpoint_url": endpoint_url, **columns}
        names = ", ".join(columns)
        marks = ", ".join(["%s"] * len(columns))
        values = [json.dumps(v) if isinstance(v, dict) else v for v in columns.values()]
        return self.value(f"insert into {{s}}.integrations ({names}) values ({marks}) returning id", values)

    def subscription(self, integration_id, payload=None, **columns):
        """Its id. payload: what json.dumps takes, or JSON text as a str."""
        row = {**self.people.enrolment(), "integration_id": integration_id}
        if payload is not None:
            row["payload"] = payload
        row.update(columns)
        if not isinstance(row["payload"], str):
            row["payload"] = json.dumps(row["payload"], ensure_ascii=False)
        marks = ", ".join(["%s"] * len(row))
        return self.value(f"insert into {{s}}.subscriptions ({', '.join(row)}) values ({marks}) returning id",
                          list(row.values()))

    def subscriptions(self, integration_id, count, batch=1000, connection=None, **columns):
        """Many at once, in transactions of `batch` rows (or in the caller's own one). Their ids, in order."""
        own = connection or self.database.connect()
        extra = list(columns.items())
        names = ", ".join(["integration_id", "order_id", "origin", "cpf", "payload", *(k for k, _ in extra)])
        ids = []
        try:
            for first in range(0, count, batch):
                rows = [(integration_id, e["order_id"], e["origin"], e["cpf"],
                         json.dumps(e["payload"], ensure_ascii=False), *(v for _, v in extra))
                        for e in self.people.enrolments(min(batch, count - first), 1000001 + first)]
                with own.cursor() as cursor:
                    found = execute_values(cursor, f"insert into {self.schema}.subscriptions ({names}) values %s "
                                           "returning id", rows, page_size=batch, fetch=True)
                ids += [r[0] for r in found]
        finally:
            if own is not connection:
                own.close()
        return ids

    def states(self, integration_id=None):
        """{status: how many}"""
        return collections.Counter(dict(self.query(
            "select status, count(*) from {s}.subscriptions where %s::bigint is null or integration_id = %s group by 1",
            (integration_id, integration_id))))

    def row(self, subscription_id):
        """A subscription as a dict."""
        return self.value("select to_jsonb(x) from {s}.subscriptions x where id = %s", (subscription_id,))

    def events(self, subscription_id):
        """Its ledger rows as dicts, in order."""
        return [r[0] for r in self.query("select to_jsonb(x) from {s}.subscription_events x where subscription_id = %s "
                                         "order by id", (subscription_id,))]

    def wait_states(self, deadline=60, integration_id=None, **wanted):
        """Waits until exactly so many rows are in each of these states: wait_states(sent=100, failed=3)."""
        def look():
            states = self.states(integration_id)
            return all(states[k] == v for k, v in wanted.items())
        wait_for(look, deadline, lambda: f"states {wanted}, now {dict(self.states(integration_id))}", interval=0.05)

    def wait_settled(self, deadline=60, integration_id=None):
        """Waits until every row is sent or failed; the states then."""
        def look():
            states = self.states(integration_id)
            return states if states and not set(+states) - {"sent", "failed"} else None
        return wait_for(look, deadline, lambda: f"all to be settled, now {dict(self.states(integration_id))}",
                        interval=0.05)
