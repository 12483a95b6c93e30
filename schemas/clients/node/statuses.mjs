// Follow a tenant's statuses:  node statuses.mjs TENANT
//
// Needs amqplib. The broker's URL comes from VOICE_OTP_AMQP_URL. Prints each status once, as JSON, a line each.
import amqp from "amqplib";

const [tenant] = process.argv.slice(2);
const seen = new Map(); // the highest sequence of each delivery: statuses come at least once

const connection = await amqp.connect(process.env.VOICE_OTP_AMQP_URL);
const channel = await connection.createChannel();
// A queue of this connection's own. To miss nothing while you are away, declare a named, durable one instead:
// channel.assertQueue("myservice.statuses", { durable: true, arguments: { "x-queue-type": "quorum" } })
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "voice-otp.status", `status.*.${tenant}`);
await channel.prefetch(100);
await channel.consume(queue, (message) => {
  if (message === null) process.exit(1); // the broker ended the consumer
  const event = JSON.parse(message.content.toString());
  const { sequence, status, final } = event.data;
  if (sequence > (seen.get(event.subject) ?? 0)) {
    seen.set(event.subject, sequence);
    console.log(JSON.stringify(event));
    if (final && status !== "delivered") console.error(`${event.subject}: offer another channel`);
  }
  channel.ack(message); // after the work, so that a crash loses none
});
console.error("ready");
