"""A peer for `./dev bench`: the worker that is usually written for this with Celery, to be measured beside voice-otp.

For each request: the tenant's settings from Postgres, a call at Twilio, two statuses with confirms, ack. It has no pace,
no memory of what it called and no end of a call. What fails is rejected: to the queue's dead letter exchange, if any.

AMQP_URL, DATABASE_URL, TWILIO_URL and QUEUE are needed; SEARCH_PATH, PREFETCH (messages for all processes together) and
CONCURRENCY (processes) may be set. Started with `python worker.py`. Prints "ready" when it consumes, and ends on SIGTERM
once what it began is done.

The queue is a quorum queue with no other arguments, and is declared here as such. Requests are Celery messages of
protocol 2, published to the default exchange with the queue's name as routing key:

    delivery_mode     2
    content_type      "application/json"
    content_encoding  "utf-8"
    headers           {"lang": "rust", "task": "voice_otp.place", "id": "<id of the event>"}, all long strings
    body              [[<event>], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]

where <event> is the whole CloudEvent as an object. Celery needs no other header and no other property.
"""

import json
import os
from datetime import datetime, timezone

import psycopg2
import requests
from celery import Celery
from celery.signals import worker_process_init, worker_ready
from kombu import Connection, Exchange, Producer

AMQP_URL = os.environ["AMQP_URL"]
QUEUE = os.environ["QUEUE"]
CONCURRENCY = int(os.environ.get("CONCURRENCY", 8))
PREFETCH = int(os.environ.get("PREFETCH", 400))
CONFIRMS = {"confirm_publish": True}
STATUSES = Exchange("voice-otp.status", type="topic", durable=True)
STATUS = "dev.voiceotp.delivery.status.v1"

app = Celery("voice_otp", broker=AMQP_URL)
app.conf.update(
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_default_exchange_type="topic",
    worker_detect_quorum_queues=True,
    broker_transport_options=CONFIRMS,
    task_acks_late=True,
    task_acks_on_failure_or_timeout=False,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=max(1, PREFETCH // CONCURRENCY),
    worker_enable_remote_control=False,
    worker_redirect_stdouts=False,
)

# Of each process its own, made after the fork.
database = twilio = statuses = None


@worker_process_init.connect
def connect(**_):
    global database, twilio, statuses
    path = os.environ.get("SEARCH_PATH")
    database = psycopg2.connect(os.environ["DATABASE_URL"], **({"options": f"-c search_path={path}"} if path else {}))
    database.autocommit = True
    twilio = requests.Session()
    twilio.trust_env = False  # otherwise it looks for proxies each time
    broker = Connection(AMQP_URL, transport_options=CONFIRMS)
    statuses = Producer(broker, STATUSES, on_return=lambda *_: None)  # no queue is bound, so the return is ignored


@worker_ready.connect
def ready(**_):
    print("ready", flush=True)


@app.task(name="voice_otp.place")
def place(event):
    data = event["data"]
    begun = datetime.fromisoformat(event["time"])
    account, token, number = tenant(data["tenant_id"])
    admitted = since(begun)
    sid = call(account, token, number, data["to"], data["code"])
    placed = since(begun)
    common = {
        "delivery_id": event["id"],
        "tenant_id": data["tenant_id"],
        "final": False,
        "to_masked": data["to"][:-7] + "*****" + data["to"][-2:],
        "context": data.get("context", {}),
    }
    timings = {"admitted_ms": admitted}
    publish(common | {"status": "accepted", "sequence": 1, "attempt": 0, "timings": timings})
    timings = {"admitted_ms": admitted, "placed_ms": placed}
    publish(common | {"status": "placed", "sequence": 2, "attempt": 1, "call_sid": sid, "timings": timings})


def tenant(name):
    with database.cursor() as cursor:
        cursor.execute("select account_sid, auth_token, from_number from bench_tenants where tenant_id = %s", (name,))
        row = cursor.fetchone()
    if row is None:
        raise LookupError(f"no tenant {name}")
    return row


def call(account, token, number, to, code):
    digits = ", ".join(code)
    answer = twilio.post(
        f"{os.environ['TWILIO_URL']}/2010-04-01/Accounts/{account}/Calls.json",
        data={
            "To": to,
            "From": number,
            "Twiml": f"<Response><Say>Your code is: {digits}. Once more: {digits}.</Say></Response>",
            "Timeout": "30",
        },
        auth=(account, token),
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["sid"]


def publish(data):
    name = f"{data['delivery_id']}/{data['sequence']}"
    event = {
        "specversion": "1.0",
        "id": name,
        "source": f"/voice-otp/{data['tenant_id']}",
        "type": STATUS,
        "subject": data["delivery_id"],
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "datacontenttype": "application/json",
        "data": data,
    }
    statuses.publish(  # returns when the broker has confirmed it
        json.dumps(event, separators=(",", ":")),
        content_type="application/cloudevents+json",
        content_encoding="utf-8",
        type=STATUS,
        message_id=f"{data['tenant_id']}/{name}",
        routing_key=f"status.{data['status']}.{data['tenant_id']}",
        delivery_mode=2,
        mandatory=True,
        retry=True,
    )


def since(begun):
    return round((datetime.now(timezone.utc) - begun).total_seconds() * 1000)


if __name__ == "__main__":
    arguments = ["--quiet", "worker", "--pool=prefork", f"--concurrency={CONCURRENCY}", "--loglevel=warning", "-Ofair"]
    app.worker_main(arguments + ["--without-gossip", "--without-mingle", "--without-heartbeat"])
