"""Print the statuses of a tenant:  statuses.py TENANT

Requires pika. VOICE_OTP_AMQP_URL is the broker's URL. Prints each status once, as a line of JSON.
"""

import json
import os
import sys

import pika

tenant = sys.argv[1]
seen = {}  # the highest sequence of each delivery, since statuses come at least once

connection = pika.BlockingConnection(pika.URLParameters(os.environ["VOICE_OTP_AMQP_URL"]))
channel = connection.channel()
# An exclusive queue, which ends with this connection. To miss no status while disconnected, declare
# a durable queue with a name instead:
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
    channel.basic_ack(method.delivery_tag)  # after processing, so that a crash loses no status
