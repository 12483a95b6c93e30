"""Ask voice-otp to read a code out by phone:  publish.py TENANT +1NUMBER CODE

Needs pika. The broker's URL comes from VOICE_OTP_AMQP_URL. Prints the delivery's id once the broker has it safe.
"""

import json
import os
import sys
import uuid
from datetime import datetime, timedelta, timezone

import pika

tenant, to, code = sys.argv[1:]
now = datetime.now(timezone.utc)
delivery_id = str(uuid.uuid4())  # publish again with this very id if you don't know whether it arrived
event = {
    "specversion": "1.0",
    "id": delivery_id,
    "source": "/auth/python",
    "type": "dev.voiceotp.delivery.requested.v1",
    "time": now.isoformat(),
    "data": {"tenant_id": tenant, "to": to, "code": code, "expires_at": (now + timedelta(minutes=3)).isoformat()},
}
parameters = pika.URLParameters(os.environ["VOICE_OTP_AMQP_URL"])
properties = pika.BasicProperties(
    content_type="application/cloudevents+json",
    delivery_mode=pika.DeliveryMode.Persistent,
    message_id=f"{tenant}/{delivery_id}",
    type=event["type"],
    user_id=parameters.credentials.username,  # RabbitMQ vouches for it: a tenant may have a list of who speaks for it
)
with pika.BlockingConnection(parameters) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # from here on a publish waits for the broker's confirm
    try:
        channel.basic_publish("voice-otp.requests", "otp.requested", json.dumps(event), properties, mandatory=True)
    except pika.exceptions.UnroutableError:
        sys.exit("not stored: no worker has declared the queue yet")
    except pika.exceptions.NackError:
        sys.exit("not stored: the queue is full")
print(delivery_id)
