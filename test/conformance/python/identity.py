"""Who a process is: its key and certificate, in its state folder. Certificates are made and read with the openssl program."""

import hashlib
import json
import os
import subprocess
import time

import grpc

from slipway.provider.v1 import provider_service_pb2 as service
from slipway.provider.v1 import provider_service_pb2_grpc as rpc

# Every hub's certificate carries this name, so that any replica's address will do.
SERVER_NAME = "gateway.slipway.internal"
# Keepalive finds out within seconds that a line is dead.
OPTIONS = [
    ("grpc.ssl_target_name_override", SERVER_NAME),
    ("grpc.default_authority", SERVER_NAME),
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]


def openssl(*arguments, stdin=b""):
    """Runs openssl, and gives what it wrote."""
    done = subprocess.run(["openssl", *arguments], input=stdin, capture_output=True, timeout=20, check=True)
    return done.stdout


def to_pem(certificate_der):
    """A certificate as PEM."""
    return openssl("x509", "-inform", "DER", stdin=certificate_der)


def pinned_authority(gateway, pin):
    """The authority in the gateway's chain whose key the join token pins, as PEM. Nothing is sent over that connection."""
    shown = openssl("s_client", "-connect", gateway, "-servername", SERVER_NAME, "-alpn", "h2", "-showcerts")
    for part in shown.split(b"-----BEGIN CERTIFICATE-----")[1:]:
        body = part.split(b"-----END CERTIFICATE-----")[0]
        pem = b"-----BEGIN CERTIFICATE-----" + body + b"-----END CERTIFICATE-----\n"
        key = openssl("pkey", "-pubin", "-outform", "DER", stdin=openssl("x509", "-pubkey", "-noout", stdin=pem))
        if hashlib.sha256(key).hexdigest() == pin:
            return pem
    raise SystemExit(f"what answers at {gateway} is not the hub that made the join token")


def signing_request():
    """A new key as PEM, and the request for its certificate as DER. The hub chooses every name, so the subject says nothing."""
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    read_end, write_end = os.pipe()
    os.write(write_end, key)
    os.close(write_end)
    # Through a pipe: the key is in no file but the one that keeps it.
    command = ["openssl", "req", "-new", "-key", f"/dev/fd/{read_end}", "-subj", "/CN=provider", "-outform", "DER"]
    done = subprocess.run(command, pass_fds=[read_end], capture_output=True, timeout=20, check=True)
    os.close(read_end)
    return key, done.stdout


class Identity:
    """A key, its certificate, and the authorities to trust."""

    def __init__(self, key, certificate, authorities, not_before, not_after):
        self.key = key
        self.certificate = certificate
        self.authorities = authorities
        self.not_before = not_before
        self.not_after = not_after

    def credentials(self):
        """What a channel to the hub is opened with."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def renew_in(self):
        """Seconds until the certificate should be renewed: from half of its life on."""
        return max(1, (self.not_before + self.not_after) / 2 - time.time())

    def save(self, state_dir):
        """Writes it so that a crash leaves the old one or the new one, readable by this user alone."""
        path = os.path.join(state_dir, "identity.json")
        saved = {**vars(self), **{name: getattr(self, name).decode() for name in ("key", "certificate", "authorities")}}
        with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf8") as file:
            json.dump(saved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)

    @staticmethod
    def load(state_dir):
        """The one that was saved, or None."""
        path = os.path.join(state_dir, "identity.json")
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf8") as file:
            saved = json.load(file)
        for name in ("key", "certificate", "authorities"):
            saved[name] = saved[name].encode()
        return Identity(**saved)

    @staticmethod
    def of(key, certificate):
        """The one that an answer of the hub makes of a key."""
        authorities = b"".join(to_pem(der) for der in certificate.ca_der)
        times = (certificate.not_before.seconds, certificate.not_after.seconds)
        return Identity(key, to_pem(certificate.certificate_der), authorities, *times)


async def enrol(gateway, token, instance_name):
    """Trades a join token for an identity, once."""
    authority = pinned_authority(gateway, token.rsplit("_", 1)[1])
    key, request = signing_request()
    async with grpc.aio.secure_channel(gateway, grpc.ssl_channel_credentials(authority), OPTIONS) as channel:
        message = service.EnrollRequest(join_token=token, csr_der=request, instance_name=instance_name)
        answer = await rpc.ProviderServiceStub(channel).Enroll(message, timeout=20)
    return Identity.of(key, answer.certificate)


async def renew(gateway, identity):
    """The next identity, for a new key."""
    key, request = signing_request()
    async with grpc.aio.secure_channel(gateway, identity.credentials(), OPTIONS) as channel:
        answer = await rpc.ProviderServiceStub(channel).Renew(service.RenewRequest(csr_der=request), timeout=20)
    return Identity.of(key, answer.certificate)
