// Request a call that reads out a code:  node publish.mjs TENANT +1NUMBER CODE
//
// Requires amqplib. VOICE_OTP_AMQP_URL is the broker's URL. Prints the delivery's id after the
// broker has stored and confirmed the request.
import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const [tenant, to, code] = process.argv.slice(2);
const url = new URL(process.env.VOICE_OTP_AMQP_URL);
const now = Date.now();
const id = randomUUID(); // if a publish isn't confirmed, publish again with the same id
const event = {
  specversion: "1.0",
  id,
  source: "/auth/node",
  type: "dev.voiceotp.delivery.requested.v1",
  time: new Date(now).toISOString(),
  data: {
    tenant_id: tenant,
    to,
    code,
    expires_at: new Date(now + 180_000).toISOString(),
  },
};
const options = {
  contentType: "application/cloudevents+json",
  persistent: true,
  mandatory: true, // otherwise the broker drops an unroutable message and confirms it
  messageId: `${tenant}/${id}`,
  type: event.type,
  // RabbitMQ validates the user. A tenant can have a list of authorised publishers.
  userId: decodeURIComponent(url.username),
};

const connection = await amqp.connect(url.href);
const channel = await connection.createConfirmChannel();
let returned = false;
channel.on("return", ({ properties }) => (returned ||= properties.messageId === options.messageId));
try {
  const body = Buffer.from(JSON.stringify(event));
  channel.publish("voice-otp.requests", "otp.requested", body, options);
  await channel.waitForConfirms(); // rejects when the queue is full
  if (returned) throw new Error("no worker has declared the queue yet");
  console.log(id);
} catch (error) {
  console.error(`not stored: ${error.message}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
