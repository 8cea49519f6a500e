"""Libraries that are not ours, to check what we send: fetched once from their language's registry, then kept."""
import os
import shutil
import subprocess
import sys

from .postgres import Unavailable
from .processes import cache_folder

VERSIONS = {"python": "1.1.0", "node": "1.1.1"}
PYTHON = """import sys, standardwebhooks
standardwebhooks.Webhook(sys.argv[1]).verify(sys.stdin.buffer.read(), dict(zip(
    ("webhook-id", "webhook-timestamp", "webhook-signature"), sys.argv[2:])))"""
NODE = """const { Webhook } = require("standardwebhooks"), [secret, id, at, signature] = process.argv.slice(1);
new Webhook(secret).verify(require("fs").readFileSync(0).toString(), {"webhook-id": id, "webhook-timestamp": at,
                                                                      "webhook-signature": signature});"""


def _fetch(language, folder):
    package = f"standardwebhooks{'==' if language == 'python' else '@'}{VERSIONS[language]}"
    if language == "python":
        return [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, package]
    return ["npm", "install", "--silent", "--no-audit", "--prefix", folder, package]


def standard_webhooks(language):
    """A function that has Standard Webhooks' own library of this language verify (secret, headers, body), and gives its words
    when it refuses them."""
    folder = cache_folder(f"standardwebhooks-{language}-{VERSIONS[language]}")
    done = os.path.join(folder, ".complete")
    if not os.path.exists(done):
        command = _fetch(language, folder)
        if not shutil.which(command[0]):
            raise Unavailable(f"{command[0]} is not installed")
        fetched = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if fetched.returncode:
            raise Unavailable(f"standardwebhooks could not be fetched: {fetched.stderr[-500:]}")
        with open(done, "w", encoding="ascii"):
            pass
    command, variable, path = {"python": ([sys.executable, "-c", PYTHON], "PYTHONPATH", folder),
                               "node": (["node", "-e", NODE], "NODE_PATH", os.path.join(folder, "node_modules"))}[language]

    def verify(secret, headers, body):
        found = subprocess.run([*command, secret, *headers], input=body, capture_output=True, check=False,
                               env={**os.environ, variable: path})
        return found.stderr.decode() if found.returncode else None
    return verify
