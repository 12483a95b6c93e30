"""Checks TwiML (standard input) against Twilio's Python helper library: each element must be one that the library builds where it
stands, with parameters that the library has for it. Prints how many elements there are: twiml.py < answer.xml
"""

import inspect
import re
import sys
import xml.etree.ElementTree as ElementTree

from twilio.twiml import voice_response as library

# The method that makes an element, and the class that it makes, whose own methods make what is inside.
METHODS = {
    "Say": ("say", library.Say),
    "Pause": ("pause", library.Pause),
    "Gather": ("gather", library.Gather),
    "Hangup": ("hangup", library.Hangup),
    "prosody": ("prosody", library.SsmlProsody),
    "break": ("break_", library.SsmlBreak),
}


def parameter(attribute):
    return re.sub("[A-Z]", lambda letter: "_" + letter.group().lower(), attribute)


def check(parent, node):
    count = 0
    for child in node:
        method, made = METHODS[child.tag]
        known = inspect.signature(getattr(parent, method)).parameters
        for attribute in child.attrib:
            if parameter(attribute) not in known:
                sys.exit(f"{child.tag} has no {attribute} inside {node.tag}")
        count += 1 + check(made, child)
    return count


root = ElementTree.fromstring(sys.stdin.read())
if root.tag != "Response":
    sys.exit(f"{root.tag} is no Response")
print(check(library.VoiceResponse, root))
