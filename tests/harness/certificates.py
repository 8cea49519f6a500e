"""Certificates for servers on loopback, as institutions have them: an authority, one below it, the server's own."""
import os
import re
import secrets
import subprocess

from .processes import scratch_folder

AUTHORITY = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
CLIENT = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n"
SERVER = "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost,DNS:school.example\n"


def _openssl(*arguments):
    done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"openssl {' '.join(arguments)}: {done.stderr}"


class Certificates:
    """`root` is what a client is to trust; `chain` and `key` are the server's. Another object is another authority."""

    def __init__(self):
        self.folder = scratch_folder()
        self._name = secrets.token_hex(4)  # libssl finds an authority by its name, and takes the first one that has it
        self._serial = 0
        self.root = self._path("root.crt")
        self._make("root", AUTHORITY)
        self._make("middle", AUTHORITY, "root")
        self.chain, self.key = self.server("server")

    def client(self, name):
        """(certificate, key) of a client by that name, both in PEM; the certificate ends with the one that signed it."""
        self._make(name, CLIENT, "middle", f"/CN={name}")
        texts = []
        for file in (f"{name}.crt", "middle.crt", f"{name}.key"):
            with open(self._path(file), encoding="ascii") as f:
                texts.append(f.read())
        return texts[0] + texts[1], texts[2]

    def server(self, name, names=None, days=2):
        """(chain, key) of another server, whose certificate is for these names alone, or has expired (days = -1)."""
        extensions = SERVER if names is None else re.sub("subjectAltName=.*", f"subjectAltName={names}", SERVER)
        self._make(name, extensions, "middle", days=days)
        chain = self._path(f"{name}.chain.crt")
        with open(chain, "w", encoding="ascii") as f:
            for part in (f"{name}.crt", "middle.crt"):
                with open(self._path(part), encoding="ascii") as certificate:
                    f.write(certificate.read())
        return chain, self._path(f"{name}.key")

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _make(self, name, extensions, issuer=None, subject=None, days=2):
        key, request, made = (self._path(f"{name}.{kind}") for kind in ("key", "csr", "crt"))
        with open(self._path("extensions"), "w", encoding="ascii") as f:
            f.write(extensions)
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        _openssl("req", "-new", "-key", key, "-subj", subject or f"/CN=anubisd test {self._name} {name}", "-out", request)
        signer = ["-CA", self._path(issuer + ".crt"), "-CAkey", self._path(issuer + ".key")] if issuer else ["-signkey", key]
        self._serial += 1
        _openssl("x509", "-req", "-in", request, *signer, "-set_serial", str(self._serial), "-days", str(days),
                 "-extfile", self._path("extensions"), "-out", made)
