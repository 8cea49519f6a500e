// The line to beat in Go: the bare work of delivery without any of its promises, for the benchmark.
//
// It does what fast_peer.c does, on the same tables (FAST_SCHEMA of bench_peer.py), as a tuned program of Go's usual
// libraries would: rows are claimed ahead, so that no worker waits for Postgres; each worker keeps its request and its
// answer; the rows of a claim share one piece of memory; events are used again. No lease, no retry, no bad answer,
// no crash, no second process: the first thing that goes wrong ends it.
//
// usage: go_peer CONNINFO BROKERS PREFIX ROWS IN_FLIGHT CA_FILE
// prints "done" when ROWS rows are sent and counted
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/valyala/fasthttp"
)

const (
	claimMost  = 500
	settleMost = 2000
	// Two of each: while one waits for its commit, the other one works.
	claimers    = 2
	settlers    = 2
	settlePause = 10 * time.Millisecond // or batches would be small
	httpTimeout = 30 * time.Second
	gcPercent   = 400 // little is alive, and memory is there
	timeFormat  = "2006-01-02T15:04:05.000000Z"
)

const claimSQL = `
with c as (update subscriptions set status = 'processing', attempts = attempts + 1, updated_at = now()
            where id in (select id from subscriptions where status = 'pending' order by id limit $1
                            for no key update skip locked)
        returning id, integration_id, cpf, payload::text as payload, attempts),
     e as (insert into subscription_events (subscription_id, event_type, attempt)
           select id, 'updated', attempts from c)
select c.id, integration_id, cpf, payload, endpoint_url, name from c join integrations i on i.id = c.integration_id`

const settleSQL = `
with r as (select * from unnest($1::bigint[], $2::text[]) as r (id, answer)),
     s as (update subscriptions s set status = 'sent', sent_at = now(), last_http_status = 200, updated_at = now()
             from r where s.id = r.id returning s.id, s.attempts, r.answer)
insert into subscription_events (subscription_id, event_type, attempt, http_status, response)
select id, 'sent', attempts, 200, answer from s`

const countSQL = `
update integrations i set successful_sends = successful_sends + c.n
  from unnest($1::bigint[], $2::bigint[]) as c (id, n) where i.id = c.id`

// A row as Postgres writes it, and the institution's answer.
type job struct {
	id, integrationID, cpf, payload, url, name, answer []byte
}

type peer struct {
	conninfo, prefix     string
	brokers              []string
	rows, inFlight       int
	claimed, answered    chan *job
	unclaimed, unsettled atomic.Int64
	producer             *kgo.Client
}

func die(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "go_peer: %s: %v\n", what, err)
		os.Exit(1)
	}
}

func number(what string, text []byte) int64 {
	n, err := strconv.ParseInt(string(text), 10, 64)
	die(what, err)
	return n
}

// --- Kafka ---

func (p *peer) client(more ...kgo.Opt) *kgo.Client {
	versions := kversion.Stable() // but for two requests, whose newer forms the embedded broker misreads
	versions.SetMaxKeyVersion(2, 2)
	versions.SetMaxKeyVersion(18, 2)
	kafka, err := kgo.NewClient(append(more, kgo.SeedBrokers(p.brokers...), kgo.MaxVersions(versions))...)
	die("Kafka", err)
	return kafka
}

// All that a record needs, in one piece that is used again.
type event struct {
	record  kgo.Record
	headers [4]kgo.RecordHeader
	value   []byte
}

type eventType struct {
	name, topic, status string
	header              []byte
}

func (p *peer) eventType(name, status string) *eventType {
	return &eventType{name, p.topic(name), status, []byte(name)}
}

func (p *peer) topic(name string) string {
	return p.prefix + "subscriptions." + name
}

var (
	events  = sync.Pool{New: func() any { return new(event) }}
	service = []byte("peer")
)

func (p *peer) publish(j *job, t *eventType, now []byte) {
	e := events.Get().(*event)
	v := append(e.value[:0], `{"event_type":"`...)
	v = append(v, t.name...)
	v = append(v, `","timestamp":"`...)
	v = append(v, now...)
	v = append(v, `","version":"1.0","subscription":{"id":`...)
	v = append(v, j.id...)
	v = append(v, `,"integration_id":`...)
	v = append(v, j.integrationID...)
	v = append(v, `,"cpf":"`...)
	v = append(v, j.cpf...)
	v = append(v, `","status":"`...)
	v = append(v, t.status...)
	v = append(v, `"},"integration":{"id":`...)
	v = append(v, j.integrationID...)
	v = append(v, `,"name":"`...)
	v = append(v, j.name...)
	v = append(v, `"},"attempt":1`...)
	if j.answer != nil {
		v = append(v, `,"response_data":`...)
		v = append(v, j.answer...)
	}
	e.value = append(v, '}')
	e.headers = [...]kgo.RecordHeader{{Key: "event_type", Value: t.header}, {Key: "timestamp", Value: now},
		{Key: "service", Value: service}, {Key: "integration_id", Value: j.integrationID}}
	e.record = kgo.Record{Topic: t.topic, Key: j.id, Value: e.value, Headers: e.headers[:]}
	p.producer.Produce(context.Background(), &e.record, func(_ *kgo.Record, err error) {
		die("publish", err)
		events.Put(e)
	})
}

// --- Postgres ---

func (p *peer) session() *pgx.Conn {
	pg, err := pgx.Connect(context.Background(), p.conninfo)
	die("Postgres", err)
	return pg
}

// Not by pgx's rows, since all fields are wanted as text and in one piece of memory.
func (p *peer) claim() {
	ctx, pg := context.Background(), p.session().PgConn()
	created, updated := p.eventType("created", "pending"), p.eventType("updated", "processing")
	_, err := pg.Prepare(ctx, "claim", claimSQL, nil)
	die("claim", err)
	for left := int64(p.rows); left > 0; left = p.unclaimed.Load() {
		limit := strconv.AppendInt(nil, min(claimMost, left), 10)
		rows := pg.ExecPrepared(ctx, "claim", [][]byte{limit}, nil, nil)
		jobs, memory := make([]job, 0, claimMost), make([]byte, 0, claimMost*512)
		for rows.NextRow() {
			jobs = append(jobs, job{})
			j := &jobs[len(jobs)-1]
			for i, field := range []*[]byte{&j.id, &j.integrationID, &j.cpf, &j.payload, &j.url, &j.name} {
				start := len(memory)
				memory = append(memory, rows.Values()[i]...)
				*field = memory[start:len(memory):len(memory)]
			}
		}
		_, err := rows.Close()
		die("claim", err)
		p.unclaimed.Add(-int64(len(jobs)))
		now := time.Now().UTC().AppendFormat(nil, timeFormat)
		for i := range jobs {
			p.publish(&jobs[i], created, now)
			p.publish(&jobs[i], updated, now)
			p.claimed <- &jobs[i]
		}
	}
}

// The first one, and those that are there after the pause; none when all rows have been settled.
func (p *peer) answers(jobs []*job) []*job {
	first, more := <-p.answered
	if !more {
		return jobs
	}
	jobs = append(jobs, first)
	time.Sleep(settlePause)
	for len(jobs) < settleMost {
		select {
		case j, more := <-p.answered:
			if !more {
				return jobs
			}
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

func (p *peer) settle(done func()) {
	defer done()
	ctx, pg, sent := context.Background(), p.session(), p.eventType("sent", "sent")
	jobs, ids, answers := make([]*job, 0, settleMost), make([]int64, 0, settleMost), make([]string, 0, settleMost)
	for {
		jobs, ids, answers = p.answers(jobs[:0]), ids[:0], answers[:0]
		if len(jobs) == 0 {
			return
		}
		for _, j := range jobs {
			ids, answers = append(ids, number("id", j.id)), append(answers, string(j.answer))
		}
		_, err := pg.Exec(ctx, settleSQL, ids, answers)
		die("settle", err)
		now := time.Now().UTC().AppendFormat(nil, timeFormat)
		for _, j := range jobs {
			p.publish(j, sent, now)
		}
		if p.unsettled.Add(-int64(len(jobs))) == 0 {
			close(p.answered)
		}
	}
}

// --- the way out ---

// net/http takes 15 µs more a request.
func newHTTPClient(inFlight int, caFile string) *fasthttp.Client {
	pem, err := os.ReadFile(caFile)
	die("CA_FILE", err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &fasthttp.Client{
		TLSConfig:       &tls.Config{RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(16)},
		MaxConnsPerHost: inFlight, MaxIdleConnDuration: time.Minute, MaxIdemponentCallAttempts: 1,
		ReadTimeout: httpTimeout, WriteTimeout: httpTimeout,
		NoDefaultUserAgentHeader: true, DisableHeaderNamesNormalizing: true, DisablePathNormalizing: true,
	}
}

// One request at a time.
func (p *peer) post(client *fasthttp.Client) {
	request, response := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	request.Header.SetMethod("POST")
	request.Header.SetContentType("application/json")
	request.Header.Set("Authorization", "Bearer t")
	for j := range p.claimed {
		request.SetRequestURIBytes(j.url)
		request.SetBodyRaw(j.payload)
		die("HTTP", client.Do(request, response))
		if response.StatusCode() != fasthttp.StatusOK {
			die("HTTP", fmt.Errorf("status %d", response.StatusCode()))
		}
		j.answer = bytes.Clone(response.Body())
		p.answered <- j
	}
}

// --- the counter ---

func (p *peer) count() {
	ctx, pg := context.Background(), p.session()
	consumer := p.client(kgo.ConsumerGroup(p.prefix+"persist"), kgo.ConsumeTopics(p.topic("sent")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond))
	for left := p.rows; left > 0; {
		fetches := consumer.PollFetches(ctx)
		die("consume", fetches.Err())
		counts := map[int64]int64{}
		for records := fetches.RecordIter(); !records.Done(); left-- {
			_, after, _ := bytes.Cut(records.Next().Value, []byte(`"integration_id":`))
			id, _, _ := bytes.Cut(after, []byte(","))
			counts[number("consume", id)]++
		}
		var ids, more []int64
		for id, n := range counts {
			ids, more = append(ids, id), append(more, n)
		}
		if len(ids) > 0 {
			_, err := pg.Exec(ctx, countSQL, ids, more)
			die("count", err)
		}
	}
	consumer.Close()
}

func main() {
	if len(os.Args) != 7 {
		die("usage", errors.New("go_peer CONNINFO BROKERS PREFIX ROWS IN_FLIGHT CA_FILE"))
	}
	debug.SetGCPercent(gcPercent)
	p := &peer{conninfo: os.Args[1], brokers: strings.Split(os.Args[2], ","), prefix: os.Args[3],
		rows: int(number("ROWS", []byte(os.Args[4]))), inFlight: int(number("IN_FLIGHT", []byte(os.Args[5]))),
		claimed: make(chan *job, claimMost), answered: make(chan *job, settleMost)}
	p.unclaimed.Store(int64(p.rows))
	p.unsettled.Store(int64(p.rows))
	p.producer = p.client(kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.MaxBufferedRecords(1_000_000))
	client := newHTTPClient(p.inFlight, os.Args[6])
	for range p.inFlight {
		go p.post(client)
	}
	for range claimers {
		go p.claim()
	}
	var settled sync.WaitGroup
	for range settlers {
		settled.Add(1)
		go p.settle(settled.Done)
	}
	p.count()
	settled.Wait()
	die("publish", p.producer.Flush(context.Background()))
	fmt.Println("done")
}
