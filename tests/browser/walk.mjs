// Walks the console in headless Chromium, as an administrator would: the whole of the product page, with its errors. Screenshots
// go to the directory that is given; every page must be without accessibility violations, and no page may hold a secret.
//
//   node walk.mjs PROGRAM DIRECTORY        with VOICE_OTP_AMQP_URL and VOICE_OTP_DATABASE_URL set

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import puppeteer from "puppeteer-core";

const [program, directory] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const tenant = `walk-${Date.now().toString(36)}`;
// Of the demo's simulator.
const account = { sid: "AC" + "a".repeat(32), token: "a".repeat(32), from: "+12025550190" };
const answers = "+12125550142";
const looks = [
  { name: "desk-light", width: 1280, height: 900, scheme: "light" },
  { name: "desk-dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone-light", width: 390, height: 844, scheme: "light" },
  { name: "phone-dark", width: 390, height: 844, scheme: "dark" },
];

mkdirSync(directory, { recursive: true });
const demo = spawn(program, ["demo"], { stdio: ["ignore", "pipe", "inherit"] });
const lines = createInterface({ input: demo.stdout });
const link = await new Promise((resolve, reject) => {
  lines.on("line", (line) => { const found = line.match(/http:\S+#code=\S+/); if (found) resolve(found[0]); });
  demo.on("exit", () => reject(new Error("the demo ended")));
});
const origin = new URL(link).origin;
const browser = await puppeteer.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium", args: ["--no-sandbox", "--disable-dev-shm-usage"], protocolTimeout: 40_000 });

let shots = 0;
async function open(context = browser.defaultBrowserContext()) {
  const page = await context.newPage();
  page.on("pageerror", (error) => { throw error; });
  page.on("console", (message) => { if (message.type() === "error" && !/status of 4\d\d/.test(message.text())) throw new Error(message.text()); });
  return page;
}

/// Looks at a page in each way: a picture, axe, nothing that overflows, no secret.
async function look(page, name) {
  shots += 1;
  await page.bringToFront();
  // The account's SID has the same letters.
  assert(!(await page.content()).replaceAll(account.sid, "").includes(account.token), `${name}: the auth token is on the page`);
  for (const { name: way, width, height, scheme } of looks) {
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }, { name: "prefers-reduced-motion", value: "reduce" }]);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    await page.screenshot({ path: `${directory}/${String(shots).padStart(2, "0")}-${name}-${way}.png`, fullPage: true });
    assert(wide <= 0, `${name} ${way}: the page is ${wide} px too wide`);
    // The page's policy lets no script in; the debugger may.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
    const told = violations.map((each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(told, [], `${name} ${way}`);
  }
  await page.setViewport({ width: 1280, height: 900 });
}

async function go(page, path) { await page.goto(origin + path); }
async function text(page, selector = "main") { return page.$eval(selector, (found) => found.innerText); }
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
  await page.waitForFunction((selector, source) => new RegExp(source).test(document.querySelector(selector).innerText), { timeout: 40_000 }, selector, pattern.source);
}

try {
  const page = await open();
  await go(page, "/sign-in");
  await look(page, "sign-in");
  await fill(page, "#token", "vot_nobody");
  await press(page, "Sign in");
  await says(page, /not good/);
  await look(page, "sign-in-refused");

  const began = Date.now();
  await page.goto(link);
  await page.waitForSelector("h1");
  await until(page, /Tenants/);
  await look(page, "tenants");
  const again = await open(await browser.createBrowserContext());
  await again.goto(link);
  await until(again, /has been used/);

  // Configuring a tenant from nothing.
  await fill(page, "#tenant", tenant);
  await press(page, "Open");
  await says(page, /Message Providers[^]*Voice provider/);
  await look(page, "voice-empty");
  await go(page, `/t/${tenant}/methods`);
  await page.click("#voice_otp");
  await press(page, "Save");
  await says(page, /Configure a voice provider/);
  await look(page, "methods-refused");
  await Promise.all([page.waitForNavigation(), page.click('a[href$="/providers/voice"]:not(nav a)')]);
  await page.$eval('form[action$="/providers/voice"]', (form) => { form.noValidate = true; });
  await fill(page, "#account_sid", "AC1");
  await fill(page, "#from", "6175551212");
  await press(page, "Save");
  await says(page, /Twilio SID[^]*Twilio Auth Token[^]*From/);
  assert.equal(await page.$eval("#from", (input) => input.getAttribute("aria-invalid")), "true");
  await look(page, "voice-errors");
  await fill(page, "#account_sid", account.sid);
  await fill(page, "#auth_token", account.token);
  await fill(page, "#from", account.from);
  await press(page, "Save");
  await says(page, /Saved/);
  await look(page, "voice-saved");

  // Trying it out.
  await fill(page, "#to", "12125550142");
  await press(page, "Make test call");
  assert.equal(await page.$eval("#to", (input) => input.getAttribute("aria-invalid")), "true");
  await look(page, "test-call-error");
  await fill(page, "#to", answers);
  await press(page, "Make test call");
  await until(page, /Answered/, "ol.timeline");
  const seconds = (Date.now() - began) / 1000;
  await until(page, /Delivered/, "ol.timeline");
  await look(page, "test-call");
  await press(page, "Check with Twilio");
  await says(page, /OK/);
  await look(page, "check");
  await page.$eval("details", (details) => { details.open = true; });
  await look(page, "advanced");

  // SMS is another service's.
  await go(page, `/t/${tenant}/providers/sms`);
  await says(page, /SMS service/);
  await look(page, "sms");

  // Enabling the method.
  await go(page, `/t/${tenant}/methods`);
  assert.equal(await page.$eval("#voice_otp", (box) => box.checked), false);
  await page.click("#voice_otp");
  await press(page, "Save");
  await says(page, /Saved/);
  assert.equal(await page.$eval("#voice_otp", (box) => box.checked), true);
  await look(page, "methods");

  // Deliveries, live.
  await go(page, `/t/${tenant}/deliveries`);
  const publish = ["publish", "--tenant", tenant, "--to", answers, "--code", "493027", "--id", `${tenant}-live`];
  execFileSync(program, publish, { stdio: "ignore" });
  await page.waitForSelector(`tr[data-delivery="${tenant}-live"]`);
  await until(page, /Delivered/, `tr[data-delivery="${tenant}-live"]`);
  await look(page, "deliveries");
  await fill(page, "#to", answers);
  await press(page, "Filter");
  await says(page, /-live/);
  assert(!page.url().includes(answers.slice(1)), "the whole number stands in the address");
  await go(page, `/t/${tenant}/deliveries?status=busy`);
  await says(page, /Nothing fits/);
  await go(page, `/t/${tenant}/deliveries?since=yesterday`);
  await says(page, /a time such as/);
  await go(page, `/t/${tenant}/deliveries/${tenant}-live`);
  await says(page, /Timeline[^]*Accepted[^]*Placed[^]*Delivered/);
  assert(!(await page.content()).includes(answers), "the whole number is on the page");
  await look(page, "delivery");
  await go(page, "/t/demo-acme/overview");
  await says(page, /By hour/);
  await look(page, "overview");

  // Two administrators at once.
  const other = await open();
  await go(other, `/t/${tenant}/providers/voice`);
  await go(page, `/t/${tenant}/providers/voice`);
  await fill(page, "#from", account.from);
  await press(page, "Save");
  await fill(other, "#from", "+12025550191");
  await press(other, "Save");
  await says(other, /Changed meanwhile/);
  assert.equal(await other.$eval("#from", (input) => input.value), "+12025550191", "what was entered is not lost");
  await press(other, "Save");
  await says(other, /Changed meanwhile/);
  await look(other, "conflict");

  await go(page, `/t/${tenant}/audit`);
  await says(page, /voice_provider.created[^]*/);
  await look(page, "audit");
  for (const [path, name] of [["/operate/accounts", "accounts"], ["/operate/system", "system"]]) {
    await go(page, path);
    await look(page, name);
  }

  // A tenant's administrator, and nobody else's.
  const made = execFileSync(program, ["token", "create", "--role", "tenant-admin", "--tenant", tenant, "--name", "walk"]).toString().trim();
  const admin = await open(await browser.createBrowserContext());
  await go(admin, "/sign-in");
  await fill(admin, "#token", made);
  await press(admin, "Sign in");
  await says(admin, /Overview/);
  for (const path of ["/t/demo-acme/providers/voice", "/t/demo-acme/deliveries", "/operate/tenants", "/operate/system"]) {
    await go(admin, path);
    await says(admin, /Not found/);
  }
  await look(admin, "not-found");
  await go(admin, "/");
  // By keyboard alone.
  await admin.keyboard.press("Tab");
  assert.equal(await admin.evaluate(() => document.activeElement.className), "skip");
  await press(admin, "Sign out");
  await go(admin, "/");
  await says(admin, /Sign in/);

  console.log(`the console: ${shots} pages in ${looks.length} ways without a violation; from the sign-in link to an answered test call ${seconds.toFixed(1)} s, pictures included`);
} finally {
  await browser.close();
  demo.kill("SIGTERM");
  await new Promise((resolve) => { if (demo.exitCode !== null) resolve(); else demo.on("exit", resolve); });
}
