// Walks through the console in headless Chromium as an administrator would: every step of the
// setup, with its errors. Screenshots go to the given directory. Every page must be free of
// accessibility violations, and no page may contain a secret.
//
//   node walk.mjs PROGRAM DIRECTORY    with VOICE_OTP_AMQP_URL and VOICE_OTP_DATABASE_URL set

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const [program, directory] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const tenant = `walk-${Date.now().toString(36)}`;
// An account of the demo's simulator.
const account = { sid: "AC" + "a".repeat(32), token: "a".repeat(32), from: "+12025550190" };
const answers = "+12125550142";
const viewports = [
  { name: "desk-light", width: 1280, height: 900, scheme: "light" },
  { name: "desk-dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone-light", width: 390, height: 844, scheme: "light" },
  { name: "phone-dark", width: 390, height: 844, scheme: "dark" },
];

mkdirSync(directory, { recursive: true });
const demo = spawn(program, ["demo"], { stdio: ["ignore", "pipe", "inherit"] });
const lines = createInterface({ input: demo.stdout });
const link = await new Promise((resolve, reject) => {
  lines.on("line", (line) => {
    const found = line.match(/http:\S+#code=\S+/);
    if (found) resolve(found[0]);
  });
  demo.on("exit", () => reject(new Error("the demo ended")));
});
const origin = new URL(link).origin;
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
  protocolTimeout: 40_000,
});

let shots = 0;
async function open(context = browser.defaultBrowserContext()) {
  const page = await context.newPage();
  page.on("pageerror", (error) => { throw error; });
  page.on("console", (message) => {
    const isError = message.type() === "error" && !/status of 4\d\d/.test(message.text());
    if (isError) throw new Error(message.text());
  });
  return page;
}

/// Checks a page in every viewport: takes a screenshot, runs axe, and finds overflow and secrets.
async function inspect(page, name) {
  shots += 1;
  await page.bringToFront();
  // The account SID consists of the same letters as the token.
  const content = (await page.content()).replaceAll(account.sid, "");
  assert(!content.includes(account.token), `${name}: the auth token is on the page`);
  for (const { name: viewport, width, height, scheme } of viewports) {
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([
      { name: "prefers-color-scheme", value: scheme },
      { name: "prefers-reduced-motion", value: "reduce" },
    ]);
    const overflow = await page.evaluate(() => {
      const root = document.documentElement;
      return root.scrollWidth - root.clientWidth;
    });
    const file = `${String(shots).padStart(2, "0")}-${name}-${viewport}.png`;
    await page.screenshot({ path: `${directory}/${file}`, fullPage: true });
    assert(overflow <= 0, `${name} ${viewport}: the page overflows by ${overflow} px`);
    // The content policy blocks injected scripts; the debugger evaluates them.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(
      () => globalThis.axe.run(document, { resultTypes: ["violations"] }),
    );
    const found = violations.map((violation) => {
      const elements = violation.nodes.map((node) => node.html).join(" ");
      return `${violation.id}: ${violation.help}: ${elements}`;
    });
    assert.deepEqual(found, [], `${name} ${viewport}`);
  }
  await page.setViewport({ width: 1280, height: 900 });
}

async function go(page, path) { await page.goto(origin + path); }
async function text(page, selector = "main") {
  return page.$eval(selector, (found) => found.innerText);
}
async function fill(page, selector, value) {
  await page.$eval(selector, (input) => { input.value = ""; });
  if (value) await page.type(selector, value);
}
async function press(page, name) {
  await page.bringToFront();
  const [button] = await page.$$(`xpath/.//button[normalize-space()="${name}"]`);
  assert(button, `there is a button ${name}`);
  await Promise.all([page.waitForNavigation(), button.click()]);
}
async function says(page, pattern) { assert.match(await text(page), pattern); }
async function until(page, pattern, selector = "main") {
  const matches = (selector, source) =>
    new RegExp(source).test(document.querySelector(selector).innerText);
  await page.waitForFunction(matches, { timeout: 40_000 }, selector, pattern.source);
}

try {
  const page = await open();
  await go(page, "/sign-in");
  await inspect(page, "sign-in");
  await fill(page, "#token", "vot_unknown");
  await press(page, "Sign in");
  await says(page, /invalid, expired or revoked/);
  await inspect(page, "sign-in-rejected");

  const began = Date.now();
  await page.goto(link);
  await page.waitForSelector("h1");
  await until(page, /Tenants/);
  await inspect(page, "tenants");
  const reused = await open(await browser.createBrowserContext());
  await reused.goto(link);
  await until(reused, /already been used/);

  // Configure a new tenant.
  await fill(page, "#tenant", tenant);
  await press(page, "Open");
  await says(page, /Message Providers[^]*Voice provider/);
  await inspect(page, "voice-empty");
  await go(page, `/t/${tenant}/methods`);
  await page.click("#voice_otp");
  await press(page, "Save");
  await says(page, /Configure a voice provider/);
  await inspect(page, "methods-not-configured");
  const configure = 'a[href$="/providers/voice"]:not(nav a)';
  await Promise.all([page.waitForNavigation(), page.click(configure)]);
  await page.$eval('form[action$="/providers/voice"]', (form) => { form.noValidate = true; });
  await fill(page, "#account_sid", "AC1");
  await fill(page, "#from", "6175551212");
  await press(page, "Save");
  await says(page, /Twilio SID[^]*Twilio Auth Token[^]*From/);
  assert.equal(await page.$eval("#from", (input) => input.getAttribute("aria-invalid")), "true");
  await inspect(page, "voice-errors");
  await fill(page, "#account_sid", account.sid);
  await fill(page, "#auth_token", account.token);
  await fill(page, "#from", account.from);
  await press(page, "Save");
  await says(page, /Saved/);
  await inspect(page, "voice-saved");

  // Make a test call.
  await fill(page, "#to", "12125550142");
  await press(page, "Make test call");
  assert.equal(await page.$eval("#to", (input) => input.getAttribute("aria-invalid")), "true");
  await inspect(page, "test-call-error");
  await fill(page, "#to", answers);
  await press(page, "Make test call");
  await until(page, /Answered/, "ol.timeline");
  const seconds = (Date.now() - began) / 1000;
  await until(page, /Delivered/, "ol.timeline");
  await inspect(page, "test-call");
  await press(page, "Check with Twilio");
  await says(page, /OK/);
  await inspect(page, "check");
  await page.$eval("details", (details) => { details.open = true; });
  await inspect(page, "advanced");

  // SMS is another service.
  await go(page, `/t/${tenant}/providers/sms`);
  await says(page, /SMS service/);
  await inspect(page, "sms");

  // Enable the method.
  await go(page, `/t/${tenant}/methods`);
  assert.equal(await page.$eval("#voice_otp", (box) => box.checked), false);
  await page.click("#voice_otp");
  await press(page, "Save");
  await says(page, /Saved/);
  assert.equal(await page.$eval("#voice_otp", (box) => box.checked), true);
  await inspect(page, "methods");

  // Deliveries that update themselves.
  await go(page, `/t/${tenant}/deliveries`);
  const live = `${tenant}-live`;
  const request = ["--tenant", tenant, "--to", answers, "--code", "493027", "--id", live];
  execFileSync(program, ["publish", ...request], { stdio: "ignore" });
  await page.waitForSelector(`tr[data-delivery="${tenant}-live"]`);
  await until(page, /Delivered/, `tr[data-delivery="${tenant}-live"]`);
  await inspect(page, "deliveries");
  await fill(page, "#to", answers);
  await press(page, "Filter");
  await says(page, /-live/);
  assert(!page.url().includes(answers.slice(1)), "the whole number is in the address");
  await go(page, `/t/${tenant}/deliveries?status=busy`);
  await says(page, /No matching deliveries/);
  await go(page, `/t/${tenant}/deliveries?since=yesterday`);
  await says(page, /must be a time such as/);
  await go(page, `/t/${tenant}/deliveries/${tenant}-live`);
  await says(page, /Timeline[^]*Accepted[^]*Placed[^]*Delivered/);
  assert(!(await page.content()).includes(answers), "the whole number is on the page");
  await inspect(page, "delivery");
  await go(page, "/t/demo-acme/overview");
  await says(page, /By hour/);
  await inspect(page, "overview");

  // Two administrators change the same settings.
  const other = await open();
  await go(other, `/t/${tenant}/providers/voice`);
  await go(page, `/t/${tenant}/providers/voice`);
  await fill(page, "#from", account.from);
  await press(page, "Save");
  await fill(other, "#from", "+12025550191");
  await press(other, "Save");
  await says(other, /Conflict/);
  const kept = await other.$eval("#from", (input) => input.value);
  assert.equal(kept, "+12025550191", "the entered value is kept");
  await press(other, "Save");
  await says(other, /Conflict/);
  await inspect(other, "conflict");

  await go(page, `/t/${tenant}/audit`);
  await says(page, /voice_provider.created[^]*/);
  await inspect(page, "audit");
  for (const [path, name] of [["/operate/accounts", "accounts"], ["/operate/system", "system"]]) {
    await go(page, path);
    await inspect(page, name);
  }

  // A tenant administrator has access to that tenant alone.
  const role = ["--role", "tenant-admin", "--tenant", tenant, "--name", "walk"];
  const made = execFileSync(program, ["token", "create", ...role]).toString().trim();
  const admin = await open(await browser.createBrowserContext());
  await go(admin, "/sign-in");
  await fill(admin, "#token", made);
  await press(admin, "Sign in");
  await says(admin, /Overview/);
  const forbidden = [
    "/t/demo-acme/providers/voice",
    "/t/demo-acme/deliveries",
    "/operate/tenants",
    "/operate/system",
  ];
  for (const path of forbidden) {
    await go(admin, path);
    await says(admin, /Not found/);
  }
  await inspect(admin, "not-found");
  await go(admin, "/");
  // The first stop of the keyboard is the skip link.
  await admin.keyboard.press("Tab");
  assert.equal(await admin.evaluate(() => document.activeElement.className), "skip");
  await press(admin, "Sign out");
  await go(admin, "/");
  await says(admin, /Sign in/);

  console.log(
    `console: ${shots} pages in ${viewports.length} viewports without violations; ` +
    `${seconds.toFixed(1)} s from the sign-in link to an answered test call, screenshots included`,
  );
} finally {
  await browser.close();
  demo.kill("SIGTERM");
  await new Promise((resolve) => {
    if (demo.exitCode !== null) resolve();
    else demo.on("exit", resolve);
  });
}
