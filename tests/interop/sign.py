"""Signs a callback as Twilio's Python helper library has it:  sign.py TOKEN URL PARAMS_AS_JSON
Or says whether that library takes a signature:               sign.py TOKEN URL PARAMS_AS_JSON SIGNATURE
"""

import json
import sys

from twilio.request_validator import RequestValidator

token, url, params, *signature = sys.argv[1:]
validator = RequestValidator(token)
if signature:
    print(str(validator.validate(url, json.loads(params), signature[0])).lower())
else:
    print(validator.compute_signature(url, json.loads(params)))
