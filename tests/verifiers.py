"""Verifiers of `v1a` signatures that share no code with ours: `cryptography`, Node's crypto, Go's crypto/ed25519.

Each gets a JSON document on its standard input: a JWK, the three headers and the body, in base64; and says yes or no.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SECONDS = 120

NODE = """
const crypto = require("crypto");
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const key = crypto.createPublicKey({ key: given.jwk, format: "jwk" });
const body = Buffer.from(given.body, "base64");
const signed = Buffer.concat([Buffer.from(`${given.id}.${given.timestamp}.`), body]);
const found = given.signature.split(" ").filter((one) => one.startsWith("v1a,"));
const good = found.some((one) => crypto.verify(null, signed, key, Buffer.from(one.slice(4), "base64")));
process.stdout.write(good ? "yes" : "no");
"""

GO = """
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

func main() {
	var given struct {
		Jwk                            map[string]string
		Id, Timestamp, Signature, Body string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	key, _ := base64.RawURLEncoding.DecodeString(given.Jwk["x"])
	body, _ := base64.StdEncoding.DecodeString(given.Body)
	signed := append([]byte(given.Id+"."+given.Timestamp+"."), body...)
	for _, one := range strings.Fields(given.Signature) {
		raw, found := strings.CutPrefix(one, "v1a,")
		signature, _ := base64.StdEncoding.DecodeString(raw)
		if found && ed25519.Verify(key, signed, signature) {
			fmt.Print("yes")
			return
		}
	}
	fmt.Print("no")
}
"""

Verifier = Callable[[Mapping[str, str], Mapping[str, str], bytes], bool]
"""Whether headers and body verify with a JWK: (jwk, headers, body)."""


def by_cryptography(jwk: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> bool:
    """Python, from the JWK's `x` on."""
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "="))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    for one in headers["webhook-signature"].split(" "):
        if one.startswith("v1a,"):
            try:
                key.verify(base64.b64decode(one[4:]), signed)
            except InvalidSignature:
                continue
            return True
    return False


def by_node(folder: Path) -> Verifier:
    """Node; skips where there is none."""
    node = _tool("node")
    return lambda *given: _asked([node, "-e", NODE], folder, *given)


def by_go(folder: Path) -> Verifier:
    """Go; skips where there is none."""
    program = folder / "verify.go"
    program.write_text(GO)
    environment = os.environ | {"GOPROXY": "off", "GOTOOLCHAIN": "local", "GO111MODULE": "off"}
    subprocess.run(
        [_tool("go"), "build", "-o", "verify", program.name],
        cwd=folder,
        env=environment,
        check=True,
        timeout=SECONDS,
    )
    return lambda *given: _asked(["./verify"], folder, *given)


VERIFIERS: dict[str, Callable[[Path], Verifier]] = {
    "cryptography": lambda _: by_cryptography,
    "node": by_node,
    "go": by_go,
}


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


def _asked(
    command: list[str], folder: Path, jwk: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> bool:
    names = ("id", "timestamp", "signature")
    document: dict[str, Any] = {name: headers[f"webhook-{name}"] for name in names}
    document |= {"jwk": dict(jwk), "body": base64.b64encode(body).decode()}
    done = subprocess.run(
        command,
        cwd=folder,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    return {"yes": True, "no": False}[done.stdout]
