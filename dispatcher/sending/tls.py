"""Encrypted connections: what is verified, and the words for certificates that fail."""

import ssl


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and newer, certificates and names verified by the system's authorities and those of `ca_file`.

    Raises OSError where the file cannot be read or holds no certificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


def certificate_word(error: ssl.SSLCertVerificationError) -> str:
    """The attempt error for a certificate that was refused, by OpenSSL's verify codes (x509_vfy.h)."""
    match error.verify_code:
        case 9 | 10:  # not yet valid, expired
            return "tls_expired"
        case 62 | 63 | 64:  # the wrong host name, e-mail or address
            return "tls_name"
        case _:
            return "tls_untrusted"
