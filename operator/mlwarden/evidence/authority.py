"""An authority as cosign is asked for it: arguments, and the files that they name.

cosign takes one identity per run. Identities with the same issuer become one expression, so that an authority is one run almost always.
Every expression is anchored here: Go searches, so that `https://github.com/acme/` would also match `https://evil.example/?https://github.com/acme/`.
What decides is only ever what a policy says: an expression of ours that cosign ignores would be CVE-2025-29778 again, so tests let the real
cosign refuse by each of the four fields.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mlwarden.cel import pattern
from mlwarden.evidence.failure import DefinitiveError
from mlwarden.model.signing import Authority, Identity, Signer

_GO_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of cosign is asked about who signed.

    Attributes:
        arguments: for `verify` and `verify-attestation`.
        files: name → content, to be written to the working directory.
        signer: who it is where the answer is yes; None where that is one of several.
        public: it needs Sigstore's public trust root.
        own: certificates of one's own authority, which stand for themselves: nobody else attests the identity in them.
    """

    arguments: tuple[str, ...]
    files: Mapping[str, bytes]
    signer: Signer | None = None
    public: bool = False
    own: bool = False


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """An authority, made ready. A yes to one of the questions is a yes.

    Attributes:
        questions: one for a key; one for each issuer of certificates.
        material: sha256 of the key as written or of what certificates are verified with; empty for Sigstore's public trust root.
    """

    questions: tuple[Question, ...]
    material: str


def ask(authority: Authority, *, roots: Mapping[str, Path], chains: bool) -> Asked:
    """Returns what to ask cosign.

    Args:
        authority: who must have signed; a key that is in a Secret is filled in.
        roots: trust roots by name; the name "" replaces Sigstore's public one.
        chains: this cosign knows `--allow-certificate-chain`.

    Raises:
        DefinitiveError: what the authority names is not there, or not what it should be.
    """
    root = _root(authority, roots)
    if authority.keyless is None and authority.certificate is None:
        return _by_key(authority, root)
    if authority.certificate is not None:
        if authority.log and root is None:
            raise DefinitiveError(
                f"authority {authority.name}: a certificate of one's own in a log needs a trust root that names the log",
                hint="trustRoot, one of the chart's scanner.trustRoots",
            )
        made = _own_root(authority.certificate.chain, root)
        arguments = ("--trusted-root", "root.json", "--insecure-ignore-sct", *(("--allow-certificate-chain",) if chains else ()))
        arguments += ("--offline",) if authority.log else ("--insecure-ignore-tlog",)
        files, material = {"root.json": made}, _short(made)
    elif root is not None:
        arguments = ("--trusted-root", "root.json", "--offline", *(() if _has_ct_log(root) else ("--insecure-ignore-sct",)))
        files, material = {"root.json": root}, _short(root)
    else:
        arguments, files, material = ("--offline",), {}, ""
    own = authority.certificate is not None
    questions = [
        Question(arguments=(*arguments, *identity), files=files, signer=signer, public=not files, own=own)
        for identity, signer in _identities(authority.identities, own=own)
    ]
    return Asked(questions=tuple(questions), material=material)


def exactly(question: Question, signer: Signer) -> Question:
    """Returns the same question about one signer."""
    kept = [each for each in question.arguments if not each.startswith("--certificate-identity")]
    if not question.own:
        kept = [each for each in kept if not each.startswith("--certificate-oidc-issuer")]
        kept.append(f"--certificate-oidc-issuer={signer.issuer}" if signer.issuer else "--certificate-oidc-issuer-regexp=^$")
    return msgspec.structs.replace(question, arguments=(*kept, f"--certificate-identity={signer.subject}"), signer=signer)


def _by_key(authority: Authority, root: bytes | None) -> Asked:
    if authority.key_secret is not None:
        raise DefinitiveError(f"authority {authority.name}: its key in Secret {authority.key_secret.name} was not read")
    try:
        public = serialization.load_pem_public_key(authority.key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise DefinitiveError(f"authority {authority.name}: its key is not a public key in PEM", hint="a PEM file, as cosign.pub") from None
    encoding = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    fingerprint = hashlib.sha256(public.public_bytes(*encoding)).hexdigest()
    # Written anew: cosign gets the key whose fingerprint is told, whatever else the text holds.
    files = {"key.pub": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)}
    arguments: tuple[str, ...] = ("--key", "key.pub")
    if not authority.log:
        arguments += ("--insecure-ignore-tlog",)
    else:
        arguments += ("--offline",)
        if root is not None:
            arguments, files = (*arguments, "--trusted-root", "root.json"), {**files, "root.json": root}
    signer = Signer(key=f"sha256:{fingerprint}")
    question = Question(arguments=arguments, files=files, signer=signer, public=authority.log and root is None)
    # Of the text, so that whoever reads Secrets need not understand keys to see that one was exchanged.
    return Asked(questions=(question,), material=_short(authority.key.strip().encode()))


def _identities(identities: tuple[Identity, ...], *, own: bool) -> list[tuple[tuple[str, ...], Signer | None]]:
    """One element for each issuer: the arguments, and who it is where they say so exactly."""
    by_issuer: dict[tuple[str, str], list[Identity]] = {}
    for identity in identities:
        by_issuer.setdefault((identity.issuer, identity.issuer_reg_exp), []).append(identity)
    found: list[tuple[tuple[str, ...], Signer | None]] = []
    for (issuer, expression), those in by_issuer.items():
        attested = f"--certificate-oidc-issuer={issuer}" if issuer else f"--certificate-oidc-issuer-regexp={_whole(expression)}"
        if len(those) == 1 and those[0].subject:
            subject = f"--certificate-identity={those[0].subject}"
        else:
            choices = [each.subject_reg_exp or _GO_SPECIAL.sub(r"\\\g<0>", each.subject) for each in those]
            subject = f"--certificate-identity-regexp={_whole(*choices)}"
        exact = (issuer or own) and len(those) == 1 and those[0].subject
        found.append(((subject, attested), Signer(issuer=issuer, subject=those[0].subject) if exact else None))
    return found


def _whole(*choices: str) -> str:
    """An expression that matches the whole text, or DefinitiveError where one of them is not an expression by itself.

    Checked one by one: `a)|(?:b` is none, and would be one of another meaning inside the brackets.
    """
    for choice in choices:
        try:
            pattern.Parser(text=choice).parse()
        except pattern.PatternError as error:
            raise DefinitiveError(f"{choice!r} in an identity is not an RE2 expression: {error}") from None
    return f"^(?:{'|'.join(f'(?:{choice})' for choice in choices)})$"


def _root(authority: Authority, roots: Mapping[str, Path]) -> bytes | None:
    path = roots.get(authority.trust_root)
    if path is None:
        if authority.trust_root:
            raise DefinitiveError(
                f"authority {authority.name}: there is no trust root {authority.trust_root!r}",
                hint="the chart's scanner.trustRoots names them",
            )
        return None
    try:
        content = path.read_bytes()
        document = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise DefinitiveError(f"trust root {authority.trust_root!r} cannot be read ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise DefinitiveError(f"trust root {authority.trust_root!r} is not a trusted_root.json")
    return content


def _has_ct_log(root: bytes) -> bool:
    return bool(json.loads(root).get("ctlogs"))


def _own_root(chain: str, root: bytes | None) -> bytes:
    """A trust root whose only certificate authority is this chain; logs and timestamp authorities are those of `root`."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        raise DefinitiveError("an authority's certificate chain is not PEM", hint="intermediate certificates, then the root") from None
    base: dict[str, Any] = json.loads(root) if root is not None else {}
    raw = [{"rawBytes": base64.b64encode(each.public_bytes(serialization.Encoding.DER)).decode()} for each in certificates]
    last = certificates[-1]
    own = {
        "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
        "certificateAuthorities": [
            {
                "subject": {"commonName": "own"},
                "uri": "https://authority.invalid",
                "certChain": {"certificates": raw},
                "validFor": {"start": _stamp(last.not_valid_before_utc), "end": _stamp(last.not_valid_after_utc)},
            }
        ],
    }
    own |= {name: base[name] for name in ("tlogs", "timestampAuthorities") if name in base}
    return json.dumps(own, sort_keys=True).encode()


def _stamp(at: Any) -> str:
    return str(at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
