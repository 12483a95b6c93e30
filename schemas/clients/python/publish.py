"""Request a call that reads out a code:  publish.py TENANT +1NUMBER CODE

Requires pika. VOICE_OTP_AMQP_URL is the broker's URL. Prints the delivery's id after the broker has
stored and confirmed the request.
"""

import json
import os
import sys
import uuid
from datetime import datetime, timedelta, timezone

import pika

tenant, to, code = sys.argv[1:]
now = datetime.now(timezone.utc)
delivery_id = str(uuid.uuid4())  # if a publish isn't confirmed, publish again with the same id
event = {
    "specversion": "1.0",
    "id": delivery_id,
    "source": "/auth/python",
    "type": "dev.voiceotp.delivery.requested.v1",
    "time": now.isoformat(),
    "data": {
        "tenant_id": tenant,
        "to": to,
        "code": code,
        "expires_at": (now + timedelta(minutes=3)).isoformat(),
    },
}
parameters = pika.URLParameters(os.environ["VOICE_OTP_AMQP_URL"])
properties = pika.BasicProperties(
    content_type="application/cloudevents+json",
    delivery_mode=pika.DeliveryMode.Persistent,
    message_id=f"{tenant}/{delivery_id}",
    type=event["type"],
    # RabbitMQ validates the user. A tenant can have a list of authorised publishers.
    user_id=parameters.credentials.username,
)
with pika.BlockingConnection(parameters) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # from now on a publish waits for the broker's confirm
    try:
        body = json.dumps(event)
        # Mandatory: otherwise the broker drops an unroutable message and confirms it.
        channel.basic_publish(
            "voice-otp.requests", "otp.requested", body, properties, mandatory=True
        )
    except pika.exceptions.UnroutableError:
        sys.exit("not stored: no worker has declared the queue yet")
    except pika.exceptions.NackError:
        sys.exit("not stored: the queue is full")
print(delivery_id)
