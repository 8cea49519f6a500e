"""Standard Webhooks: what institutions can verify, by implementations that are not ours, and how secrets are exchanged."""
import base64
import hashlib
import hmac
import json
import shutil
import subprocess

import pytest
from conftest import unavailable
from harness.libraries import standard_webhooks
from harness.postgres import Unavailable, refused
from harness.processes import wait_for
from harness.recording import RecordingServer

OLD = "whsec_" + base64.b64encode(bytes(range(32))).decode()
NEW = "whsec_" + base64.b64encode(bytes(range(100, 164))).decode()
# Numbers, texts and an order that a second serialisation would change.
PAYLOAD = '{"valor": 12345678901234567890.10, "nome": "João \\u00e9 \\"x\\"", "b": 1, "a": [1e2, null]}'

PERL = """use Digest::SHA qw(hmac_sha256_base64); use MIME::Base64; binmode STDIN; local $/;
my ($secret, $id, $at) = @ARGV; my $body = <STDIN>; my $s = hmac_sha256_base64("$id.$at.$body", decode_base64(substr $secret, 6));
$s .= "=" while length($s) % 4; print "v1,$s";"""
NODE = """const [secret, id, at] = process.argv.slice(1), body = require("fs").readFileSync(0);
const key = Buffer.from(secret.slice(6), "base64"), mac = require("crypto").createHmac("sha256", key);
mac.update(id + "." + at + "."); mac.update(body); process.stdout.write("v1," + mac.digest("base64"));"""
COMMANDS = {"perl": ["perl", "-e", PERL], "node": ["node", "-e", NODE]}


def signature(secret, identifier, at, body):
    mac = hmac.new(base64.b64decode(secret[6:]), f"{identifier}.{at}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(mac.digest()).decode()


def webhook(request):
    return tuple(request.header(f"webhook-{name}") for name in ("id", "timestamp", "signature"))


def verify(request, *secrets):
    """By Python's hmac."""
    identifier, at, signatures = webhook(request)
    assert signatures == " ".join(signature(secret, identifier, at, request.body) for secret in secrets)
    assert abs(int(at) - request.at) < 5, "the time is that of the attempt"


@pytest.fixture(scope="module")
def signed():
    with RecordingServer() as server:
        yield server


def test_the_bytes_that_are_sent_are_signed(app, make_daemon, signed):
    """Python's hmac, Perl's Digest::SHA, which is no OpenSSL, and node where it is installed."""
    make_daemon().start()
    subscription = app.subscription(app.integration(signed.url + "/one", delivery_settings={"signing_secret": NEW}), PAYLOAD)
    app.wait_states(sent=1)
    request = signed.at("/one")[0]
    assert json.loads(request.body) == json.loads(PAYLOAD)
    verify(request, NEW)
    identifier, at, signatures = webhook(request)
    assert identifier == request.header("idempotency-key") and "." not in identifier
    for name, command in COMMANDS.items():
        if shutil.which(name):
            done = subprocess.run([*command, NEW, identifier, at], input=request.body, capture_output=True, check=True)
            assert done.stdout.decode() == signatures, name
    assert app.row(subscription)["attempts"] == 1


@pytest.mark.parametrize("language", ["python", "node"])
def test_the_libraries_of_standard_webhooks_take_it(app, make_daemon, signed, language):
    if language == "node" and not shutil.which("npm"):
        pytest.skip("npm is not installed")
    try:
        verified = standard_webhooks(language)
    except Unavailable as e:
        unavailable(str(e))
    make_daemon().start()
    app.subscription(app.integration(signed.url + "/" + language, delivery_settings={"signing_secret": f"{NEW} {OLD}"}), PAYLOAD)
    app.wait_states(sent=1)
    request = signed.at("/" + language)[0]
    for secret in (NEW, OLD):
        assert verified(secret, webhook(request), request.body) is None
        assert "WebhookVerificationError" in verified(secret, webhook(request), request.body + b" ")
    assert "WebhookVerificationError" in verified("whsec_" + "A" * 43 + "=", webhook(request), request.body)


def test_each_attempt_has_its_time_and_all_have_one_id(app, make_daemon):
    with RecordingServer(lambda request: (500 if len(server.received) < 2 else 200, {}, b"")) as server:
        make_daemon({"retry": {"base_delay": "1500ms"}}).start()
        app.subscription(app.integration(server.url, delivery_settings={"signing_secret": OLD}))
        app.wait_states(sent=1)
        first, second = server.received
        verify(first, OLD)
        verify(second, OLD)
        assert webhook(first)[0] == webhook(second)[0] and webhook(first)[1] < webhook(second)[1]


def test_secrets_are_exchanged_without_a_restart(app, make_daemon, signed, tmp_path):
    (tmp_path / "usp").write_text(f"{NEW}\n")
    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    number = app.integration(signed.url + "/exchange")

    def send(settings):
        app.query("update {s}.integrations set delivery_settings = %s where id = %s", (json.dumps(settings), number))
        wanted = len(signed.at("/exchange")) + 1
        app.subscription(number)
        app.wait_states(sent=wanted)
        return signed.at("/exchange")[-1]

    assert webhook(send({})) == (None, None, None)
    verify(send({"signing_secret": OLD}), OLD)
    verify(send({"signing_secret": f"{NEW} {OLD}"}), NEW, OLD)  # the newer first
    verify(send({"signing_secret": "credential:usp"}), NEW)
    (tmp_path / "usp").write_text(f"{OLD} {NEW}\n")
    daemon.reload()
    daemon.wait_log("configuration read again")
    verify(send({"signing_secret": "credential:usp"}), OLD, NEW)
    for text in (daemon.log, str(app.query("select row_to_json(e)::text from {s}.subscription_events e"))):
        assert OLD[6:] not in text and NEW[6:] not in text


ODD = {
    "no prefix": OLD[6:],
    "the prefix alone": "whsec_",
    "another prefix": "whpk_" + OLD[6:],
    "too short": "whsec_" + base64.b64encode(bytes(23)).decode(),
    "too long": "whsec_" + base64.b64encode(bytes(65)).decode(),
    "far too long": "whsec_" + base64.b64encode(bytes(3000)).decode(),
    "no padding": OLD.rstrip("="),
    "too much padding": OLD + "=",
    "of URLs": "whsec_" + base64.urlsafe_b64encode(b"\xff" * 33).decode(),
    "three": f"{OLD} {NEW} {OLD}",
    "two lines": f"{OLD}\n{NEW}",
    "a comma": f"{OLD},{NEW}",
    "a file": "file:/etc/secret",
    "a variable": "env:SECRET",
    "empty": "", "blank": " ", "a list": [OLD], "nothing": None,
    "no name": "credential:",
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_what_is_no_secret_is_refused_when_it_is_written(app, name):
    state, words = refused(app.integration, "https://x.example/", delivery_settings={"signing_secret": ODD[name]})
    assert state == "23514" and words.startswith("delivery_settings.signing_secret ") and OLD[6:20] not in words, words


@pytest.mark.parametrize("size", [24, 25, 26, 63, 64])
def test_secrets_of_every_size_are_taken(app, size):
    secret = "whsec_" + base64.b64encode(bytes(size)).decode()
    app.integration("https://x.example/", delivery_settings={"signing_secret": f"{secret}  {secret} "})


def test_what_was_there_before_pauses_its_integration(app, make_daemon, signed):
    """Nothing goes out unsigned, and the reason holds nothing of the secret."""
    app.query("alter table {s}.integrations disable trigger user")
    app.subscription(app.integration(signed.url + "/before", delivery_settings={"signing_secret": OLD[6:]}))
    app.query("alter table {s}.integrations enable trigger user")
    daemon = make_daemon().start()
    app.wait_states(retry=1)
    reason = wait_for(lambda: app.value("select pause_reason from {s}.integrations"), 30, "the integration to be paused")
    assert reason == "its delivery_settings cannot be used: signing_secret must be whsec_ and base64"
    assert not signed.at("/before") and OLD[6:20] not in daemon.log
