// Ask voice-otp to read a code out by phone:  node publish.mjs TENANT +1NUMBER CODE
//
// Needs amqplib. The broker's URL comes from VOICE_OTP_AMQP_URL. Prints the delivery's id once the broker has it safe.
import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const [tenant, to, code] = process.argv.slice(2);
const url = new URL(process.env.VOICE_OTP_AMQP_URL);
const now = Date.now();
const id = randomUUID(); // publish again with this very id if you don't know whether it arrived
const event = {
  specversion: "1.0",
  id,
  source: "/auth/node",
  type: "dev.voiceotp.delivery.requested.v1",
  time: new Date(now).toISOString(),
  data: { tenant_id: tenant, to, code, expires_at: new Date(now + 180_000).toISOString() },
};
const options = {
  contentType: "application/cloudevents+json",
  persistent: true,
  mandatory: true, // without it the broker confirms what it could route nowhere
  messageId: `${tenant}/${id}`,
  type: event.type,
  userId: decodeURIComponent(url.username), // RabbitMQ vouches for it: a tenant may have a list of who speaks for it
};

const connection = await amqp.connect(url.href);
const channel = await connection.createConfirmChannel();
let returned = false;
channel.on("return", (message) => (returned ||= message.properties.messageId === options.messageId));
try {
  channel.publish("voice-otp.requests", "otp.requested", Buffer.from(JSON.stringify(event)), options);
  await channel.waitForConfirms(); // rejects when the queue is full
  if (returned) throw new Error("no worker has declared the queue yet");
  console.log(id);
} catch (error) {
  console.error(`not stored: ${error.message}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
