// Signs a callback as Twilio's Node helper library has it:  node sign.mjs TOKEN URL PARAMS_AS_JSON
// Or says whether that library takes a signature:           node sign.mjs TOKEN URL PARAMS_AS_JSON SIGNATURE
import twilio from "twilio";

const [token, url, params, signature] = process.argv.slice(2);
console.log(
  signature === undefined
    ? twilio.getExpectedTwilioSignature(token, url, JSON.parse(params))
    : twilio.validateRequest(token, signature, url, JSON.parse(params)),
);
