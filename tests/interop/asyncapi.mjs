// Reads schemas/asyncapi.json with AsyncAPI's own parser:  node asyncapi.mjs FILE
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(await readFile(process.argv[2], "utf8"));
// 0 is an error, 1 a warning; the rest is advice.
const grave = diagnostics.filter(({ severity }) => severity <= 1);
for (const { severity, path, message } of grave) console.error(severity, path.join("."), message);
if (document === undefined || grave.length > 0) process.exit(1);
console.log(`${document.channels().all().length} channels, ${document.operations().all().length} operations`);
