"""Follow a tenant's statuses:  statuses.py TENANT

Needs pika. The broker's URL comes from VOICE_OTP_AMQP_URL. Prints each status once, as JSON, a line each.
"""

import json
import os
import sys

import pika

tenant = sys.argv[1]
seen = {}  # the highest sequence of each delivery: statuses come at least once

connection = pika.BlockingConnection(pika.URLParameters(os.environ["VOICE_OTP_AMQP_URL"]))
channel = connection.channel()
# A queue of this connection's own. To miss nothing while you are away, declare a named, durable one instead:
# channel.queue_declare("myservice.statuses", durable=True, arguments={"x-queue-type": "quorum"})
queue = channel.queue_declare("", exclusive=True).method.queue
channel.queue_bind(queue, "voice-otp.status", f"status.*.{tenant}")
channel.basic_qos(prefetch_count=100)
print("ready", file=sys.stderr, flush=True)

for method, _, body in channel.consume(queue):
    event = json.loads(body)
    data = event["data"]
    if data["sequence"] > seen.get(event["subject"], 0):
        seen[event["subject"]] = data["sequence"]
        print(json.dumps(event), flush=True)
        if data["final"] and data["status"] != "delivered":
            print(f"{event['subject']}: offer another channel", file=sys.stderr, flush=True)
    channel.basic_ack(method.delivery_tag)  # after the work, so that a crash loses none
