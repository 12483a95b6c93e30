// Makes a Twilio OpenAPI description ready for Prism:  node openapi.mjs IN OUT
//
// A list in a form is sent by repeating its name: OpenAPI's default, and Twilio's way. Prism goes by it only where the
// description says so, so it is said.
import { readFile, writeFile } from "node:fs/promises";

const [from, to] = process.argv.slice(2);
const description = JSON.parse(await readFile(from, "utf8"));
for (const path of Object.values(description.paths)) {
  for (const operation of Object.values(path)) {
    const form = operation?.requestBody?.content?.["application/x-www-form-urlencoded"];
    for (const [name, { type }] of Object.entries(form?.schema?.properties ?? {})) {
      if (type === "array") (form.encoding ??= {})[name] = { style: "form", explode: true };
    }
  }
}
await writeFile(to, JSON.stringify(description));
