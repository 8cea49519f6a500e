"""The demo's last page: what happened to whom, and whether all was right."""
import collections
import textwrap

from demo_screen import NAME, WHAT, WIDTH, number
from demo_world import CHARACTERS, CONFIRMING, TOTAL

Findings = collections.namedtuple("Findings", "sample ids keys messages sequences ledger verify troubles")


def look(demo, sample):
    """Gathers everything that the summary says."""
    ledger = {f"anubis.subscriptions.{event_type}": set(ids) for event_type, ids in demo.database().query(
        "select event_type, array_agg(id) from anubis.subscription_events group by 1")}
    keys = {c: demo.institutions.keys(c.path) for c in CHARACTERS}
    return Findings(sample, demo.enrolments.ids, keys, dict(demo.reader.messages), demo.reader.sequences, ledger,
                    demo.ctl("verify"), demo.troubles)


def checks(f):
    """(is it right, what) of everything that has to be."""
    astray = [c.name for c in CHARACTERS if f.sample.states[f.ids[c]][c.ends] != c.count]
    yield not astray, ("each institution's subscriptions ended as its character has it" if not astray else
                       "subscriptions ended otherwise than they had to: " + ", ".join(astray))
    sent = sum(c.count for c in CHARACTERS if c.ends == "sent")
    acknowledged = sum(k.acknowledged >= 1 for c in CHARACTERS for k in f.keys[c].values())
    twice = sum(k.acknowledged > 1 for c in CHARACTERS for k in f.keys[c].values())
    yield acknowledged == sent, f"the institutions have accepted {number(acknowledged)} enrolments"
    yield twice <= f.troubles.under_way, (
        f"{twice or 'none'} of them twice, with one Idempotency-Key: {f.troubles.under_way} were under way at kill -9")
    events = sum(len(ids) for ids in f.ledger.values())
    found = sum(len(f.sequences[topic] & ids) for topic, ids in f.ledger.items())
    yield (found == events and all(f.sequences[t] <= f.ledger.get(t, set()) for t in f.sequences),
           f"{number(found)} of {number(events)} events of the ledger were read back, each from its topic")
    yield f.sample.confirmed == CONFIRMING.count, (
        f"{CONFIRMING.name} has confirmed {number(f.sample.confirmed)} of its {number(CONFIRMING.count)}, through Kafka")
    yield f.verify.code == 0, "anubisctl verify finds no difference between states, ledger and counters"


def institutions_table(screen, f):
    screen.line(screen.colour("bold", f"  {'Institution':<{NAME}}  {'':<{WHAT}} {'sent':>7} {'failed':>7} {'retried':>8}"))
    for c in CHARACTERS:
        states = f.sample.states[f.ids[c]]
        screen.line(f"  {c.name:<{NAME}}  {screen.colour('dim', f'{c.what:<{WHAT}}')} "
                    f"{number(states['sent']):>7} {number(states['failed']):>7} "
                    f"{number(f.sample.retried[f.ids[c]]):>8}")
    total = f.sample.total
    states = ", ".join(f"{number(total[s])} {s}" for s in ("sent", "failed", "retry", "processing", "pending") if total[s])
    screen.line()
    screen.line(f"  {number(TOTAL)} subscriptions: {states}")
    screen.line(textwrap.fill("Meanwhile: " + "; ".join(f.troubles.happened), WIDTH, initial_indent="  ", subsequent_indent="  "))


def topics_table(screen, f):
    screen.line()
    screen.line(screen.colour("bold", f"  {'Topic':<32} {'in the ledger':>14} {'read back':>10} {'duplicates':>11}"))
    for topic, sequences in f.sequences.items():
        screen.line(f"  {topic:<32} {number(len(f.ledger.get(topic, ()))):>14} {number(len(sequences)):>10} "
                    f"{number(f.messages.get(topic, 0) - len(sequences)):>11}")


def summary(screen, f):
    """Prints it; whether all was right."""
    screen.line()
    institutions_table(screen, f)
    topics_table(screen, f)
    screen.line()
    all_right = True
    for right, what in checks(f):
        mark = screen.colour("green", screen.tick) if right else screen.colour("red", screen.cross)
        screen.line(f"  {mark} {what}")
        all_right = all_right and right
    if f.verify.code:
        for line in (f.verify.stdout + f.verify.stderr).rstrip().splitlines():
            screen.line("      " + line)
    return all_right
