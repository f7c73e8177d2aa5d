"""When the client certificates of an installation with several partitions end."""

from dispatcher.store.across.partitions import Partitions
from dispatcher.store.client_certificates import MOST_SHOWN, ClientCertificates, EndingCertificate


class ClientCertificatesAcross(ClientCertificates):
    """As ClientCertificates, of all partitions."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._at = partitions.readers(ClientCertificates)

    async def ending(self, now_ms: int) -> list[EndingCertificate]:
        """As ClientCertificates.ending."""
        found = await self._partitions.everywhere(lambda n: self._at(n).ending(now_ms))
        every = sorted((one for some in found.values() for one in some), key=lambda one: one.ends_ms)
        ended = [one for one in every if one.ends_ms < now_ms]
        soon = [one for one in every if one.ends_ms >= now_ms][:MOST_SHOWN]
        left = MOST_SHOWN - len(soon)
        return [*(ended[-left:] if left else []), *soon]
