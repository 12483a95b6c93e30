// A peer for `./dev bench`: the worker that is usually written for this in Node.js, to be measured beside voice-otp.
//
// For each request: the tenant's settings from Postgres, a call at Twilio, two statuses with confirms, ack. It has no pace,
// no memory of what it called and no end of a call. What fails is rejected: to the queue's dead letter exchange, if any.
//
// AMQP_URL, DATABASE_URL, TWILIO_URL and QUEUE are needed; SEARCH_PATH, PREFETCH, HTTP_CONNECTIONS and PG_CONNECTIONS may be
// set. The queue exists already. Prints "ready" when it consumes, and ends on SIGTERM once what it began is done.
import amqp from "amqplib";
import pg from "pg";
import { Pool as HttpPool } from "undici";

const { AMQP_URL, DATABASE_URL, TWILIO_URL, QUEUE, SEARCH_PATH } = process.env;
const PREFETCH = Number(process.env.PREFETCH ?? 400);
const EXCHANGE = "voice-otp.status";
const STATUS = "dev.voiceotp.delivery.status.v1";

const database = new pg.Pool({
  connectionString: DATABASE_URL,
  max: Number(process.env.PG_CONNECTIONS ?? 8),
  ...(SEARCH_PATH && { options: `-c search_path=${SEARCH_PATH}` }),
});
const twilio = new HttpPool(TWILIO_URL, { connections: Number(process.env.HTTP_CONNECTIONS ?? 256), pipelining: 1 });

// Two connections: when the broker slows publishers down, acks still go through.
const incoming = await amqp.connect(AMQP_URL);
const outgoing = await amqp.connect(AMQP_URL);
for (const connection of [incoming, outgoing]) connection.on("error", fail);
const channel = await incoming.createChannel();
const statuses = await outgoing.createConfirmChannel();
channel.on("error", fail);
statuses.on("error", fail);
statuses.on("return", () => {}); // no queue is bound, so the return is ignored
await statuses.assertExchange(EXCHANGE, "topic", { durable: true });

async function place(event) {
  const { tenant_id, to, code, context = {} } = event.data;
  const begun = Date.parse(event.time);
  const { account_sid, auth_token, from_number } = await tenant(tenant_id);
  const admitted_ms = Date.now() - begun;
  const call_sid = await call(account_sid, auth_token, from_number, to, code);
  const placed_ms = Date.now() - begun;
  const data = { delivery_id: event.id, tenant_id, final: false, to_masked: mask(to), context };
  await Promise.all([
    publish({ ...data, status: "accepted", sequence: 1, attempt: 0, timings: { admitted_ms } }),
    publish({ ...data, status: "placed", sequence: 2, attempt: 1, call_sid, timings: { admitted_ms, placed_ms } }),
  ]);
}

async function tenant(id) {
  const { rows } = await database.query({
    name: "tenant", // prepared once on each connection
    text: "select account_sid, auth_token, from_number from bench_tenants where tenant_id = $1",
    values: [id],
  });
  if (rows.length === 0) throw new Error(`no tenant ${id}`);
  return rows[0];
}

async function call(account, token, from, to, code) {
  const digits = [...code].join(", ");
  const { statusCode, body } = await twilio.request({
    method: "POST",
    path: `/2010-04-01/Accounts/${account}/Calls.json`,
    headers: {
      authorization: `Basic ${Buffer.from(`${account}:${token}`).toString("base64")}`,
      "content-type": "application/x-www-form-urlencoded",
    },
    body: new URLSearchParams({
      To: to,
      From: from,
      Twiml: `<Response><Say>Your code is: ${digits}. Once more: ${digits}.</Say></Response>`,
      Timeout: "30",
    }).toString(),
  });
  const answer = await body.json();
  if (statusCode !== 201) throw new Error(`Twilio says ${statusCode}`);
  return answer.sid;
}

function publish(data) {
  const id = `${data.delivery_id}/${data.sequence}`;
  const event = {
    specversion: "1.0",
    id,
    source: `/voice-otp/${data.tenant_id}`,
    type: STATUS,
    subject: data.delivery_id,
    time: new Date().toISOString(),
    datacontenttype: "application/json",
    data,
  };
  const options = {
    contentType: "application/cloudevents+json",
    type: STATUS,
    messageId: `${data.tenant_id}/${id}`,
    persistent: true,
    mandatory: true,
  };
  const key = `status.${data.status}.${data.tenant_id}`;
  return new Promise((confirmed, refused) => {
    statuses.publish(EXCHANGE, key, Buffer.from(JSON.stringify(event)), options, (error) =>
      error ? refused(error) : confirmed(),
    );
  });
}

function mask(number) {
  return number.slice(0, -7) + "*****" + number.slice(-2);
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

let running = 0;
let idle = () => {};

async function take(message) {
  if (message === null) return fail(new Error("the queue is gone"));
  running += 1;
  try {
    await place(JSON.parse(message.content));
    channel.ack(message);
  } catch (error) {
    console.error(error.message);
    channel.nack(message, false, false);
  }
  running -= 1;
  if (running === 0) idle();
}

await channel.prefetch(PREFETCH);
const { consumerTag } = await channel.consume(QUEUE, take);
console.log("ready");

process.once("SIGTERM", async () => {
  await channel.cancel(consumerTag);
  if (running > 0) await new Promise((done) => (idle = done));
  await channel.close();
  await Promise.all([incoming.close(), outgoing.close(), twilio.close(), database.end()]);
});
