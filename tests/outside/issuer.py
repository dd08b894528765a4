#!/usr/bin/env python3
"""Makes tokens and keys with PyJWT, independently of Systole.

    python3 issuer.py keys DIRECTORY           writes NAME.key and NAME.pem for eddsa and es256,
                                              hs256.secret, and set.json with the public keys
    python3 issuer.py sign ALGORITHM KEY CLAIMS [KID]     prints a token of these claims (JSON)
    python3 issuer.py probe                    exit code 0 if PyJWT and its cryptography are here
"""

import json
import os
import sys

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def write(directory, name, data):
    with open(os.path.join(directory, name), "wb") as file:
        file.write(data)


def make_keys(directory):
    pem = serialization.Encoding.PEM
    made = {"eddsa": ed25519.Ed25519PrivateKey.generate(),
            "es256": ec.generate_private_key(ec.SECP256R1())}
    listed = []
    for name, key in made.items():
        write(directory, name + ".key", key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        public = key.public_key()
        write(directory, name + ".pem", public.public_bytes(
            pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        algorithm = jwt.get_algorithm_by_name("EdDSA" if name == "eddsa" else "ES256")
        listed.append({**json.loads(algorithm.to_jwk(public)), "kid": name, "use": "sig"})
    write(directory, "hs256.secret", os.urandom(32).hex().encode() + b"\n")
    write(directory, "set.json", json.dumps({"keys": listed}).encode())


def sign(algorithm, key, claims, kid=None):
    with open(key, "rb") as file:
        secret = file.read().strip()
    headers = {"kid": kid} if kid else None
    print(jwt.encode(json.loads(claims), secret, algorithm, headers))


if __name__ == "__main__":
    {"keys": make_keys, "sign": sign, "probe": lambda: None}[sys.argv[1]](*sys.argv[2:])
