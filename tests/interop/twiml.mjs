// Builds TwiML with Twilio's Node helper library from a tree of its elements (JSON, standard input) and prints it: every element
// goes through the method that the library has for it; one that it doesn't have is an error.
import { readFileSync } from "node:fs";
import twilio from "twilio";

const methods = { Say: "say", Pause: "pause", Gather: "gather", Hangup: "hangup", prosody: "prosody", break: "break" };

function build(parent, node) {
  for (const child of node.children) {
    if (typeof child === "string") {
      parent.addText(child);
      continue;
    }
    const name = methods[child.name];
    if (name === undefined || typeof parent[name] !== "function") {
      throw new Error(`the library has no ${child.name} inside ${node.name}`);
    }
    const takesText = ["say", "prosody"].includes(name);
    build(takesText ? parent[name](child.attributes, "") : parent[name](child.attributes), child);
  }
}

const response = new twilio.twiml.VoiceResponse();
build(response, JSON.parse(readFileSync(0, "utf8")));
console.log(response.toString());
