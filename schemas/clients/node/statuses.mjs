// Print the statuses of a tenant:  node statuses.mjs TENANT
//
// Requires amqplib. VOICE_OTP_AMQP_URL is the broker's URL. Prints each status once, a line of JSON.
import amqp from "amqplib";

const [tenant] = process.argv.slice(2);
const seen = new Map(); // the highest sequence of each delivery, since statuses come at least once

const connection = await amqp.connect(process.env.VOICE_OTP_AMQP_URL);
const channel = await connection.createChannel();
// An exclusive queue, which ends with this connection. To miss no status while disconnected, declare
// a durable queue with a name instead:
// channel.assertQueue("myservice.statuses", {
//   durable: true, arguments: { "x-queue-type": "quorum" } })
const { queue } = await channel.assertQueue("", { exclusive: true });
await channel.bindQueue(queue, "voice-otp.status", `status.*.${tenant}`);
await channel.prefetch(100);
await channel.consume(queue, (message) => {
  if (message === null) process.exit(1); // the broker cancelled the consumer
  const event = JSON.parse(message.content.toString());
  const { sequence, status, final } = event.data;
  if (sequence > (seen.get(event.subject) ?? 0)) {
    seen.set(event.subject, sequence);
    console.log(JSON.stringify(event));
    if (final && status !== "delivered") {
      console.error(`${event.subject}: offer another channel`);
    }
  }
  channel.ack(message); // after processing, so that a crash loses no status
});
console.error("ready");
