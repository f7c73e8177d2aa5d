"""Encrypted connections: what is verified, and the error words for refused certificates."""

import ssl

CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
"""For TLS 1.2: Python's own choice (Modules/_ssl.c), without key exchange over finite fields (DHE).

There the server chooses the field, and a large one costs this process half a second of CPU for each handshake.
"""


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and newer; verifies certificates and names, with the system's authorities and those of `ca_file`.

    Raises OSError if the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def certificate_word(error: ssl.SSLCertVerificationError) -> str:
    """The attempt error for a refused certificate, by OpenSSL's verify code (x509_vfy.h)."""
    match error.verify_code:
        case 9 | 10:  # not yet valid, expired
            return "tls_expired"
        case 62 | 63 | 64:  # the wrong host name, e-mail or address
            return "tls_name"
        case _:
            return "tls_untrusted"
